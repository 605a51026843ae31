"""Fitting: start from landmarks, solver, subject (an image set), result, storage.

The package is also the function a user calls: `facefit.fit(["a.jpg"])` is `facefit.fit.api.fit(["a.jpg"])`,
while `import facefit.fit.storage` works as for any package, in whatever order things are imported.
"""

import inspect
import sys
import types

from facefit.fit.api import fit


class _CallablePackage(types.ModuleType):
    __call__ = staticmethod(fit)


sys.modules[__name__].__class__ = _CallablePackage
# So that help() and editors show the function's arguments for the package.
__signature__ = inspect.signature(fit)
