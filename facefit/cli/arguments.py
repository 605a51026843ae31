"""What can be said on the command line: one dataclass a command, read by tyro. Nothing heavy is imported
here.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import tyro

from facefit.errors import InputError

Output = Annotated[Path, tyro.conf.arg(aliases=["-o"], metavar="OUT")]
Positional = tyro.conf.Positional


@dataclasses.dataclass(frozen=True)
class Fit:
    """Fit one person's face to one or several photographs.

    Attributes:
        photos: photographs, all of the same person.
        output: folder for the results; made where it is missing.
        model: name of an installed model (`facefit models list`) or a model file.
        landmarks: your own 68 points, a file (.pts, .npy, .json) for each photograph, in the same order.
        preset: how long to look: fast, default or best.
        face: which face, where there are several: largest, a number counted from the left, or a point x,y in
            pixels.
        focal: focal length in pixels, where you know it.
        start: where the fit starts from: landmarks, or encoder: from what the embedded encoder predicts, in
            fewer steps. As good, and quicker where many are fitted in one process (`facefit.fit` in Python);
            this command loses more with loading the encoder. Only for the encoder's model.
    """

    photos: Positional[Annotated[tuple[str, ...], tyro.conf.arg(metavar="PHOTO...")]]
    output: Output
    model: Annotated[str, tyro.conf.arg(metavar="NAME|FILE")] = "open"
    landmarks: Annotated[tuple[str, ...], tyro.conf.arg(metavar="FILE...")] = ()
    preset: Literal["fast", "default", "best"] = "default"
    face: Annotated[str, tyro.conf.arg(metavar="largest|N|x,y")] = "largest"
    focal: Annotated[float | None, tyro.conf.arg(metavar="PX")] = None
    start: Literal["landmarks", "encoder"] = "landmarks"

    def run(self) -> int:
        """Fits, writes, and says what was done."""
        from facefit.cli.fit import run

        return run(self)


@dataclasses.dataclass(frozen=True)
class Prepare:
    """Make a data set for training the encoder from folders of photographs. Started again, it goes on.

    Landmarks that came with the photographs are used: a .pts, .mat, .npy or .json file of the photograph's
    name, CSV tables (file, x0, y0, ... x67, y67), an AFLW SQLite file. Others are found by the detector.

    Attributes:
        folders: folders of photographs, searched with their subfolders.
        output: folder for the data set; made where it is missing.
        size: side of the crops, pixels.
        min_face: least size of a face in a photograph, pixels.
        persons: who is on a photograph: folder (each folder is a person), name (the file's name without a
            number at its end), each (every photograph another person), auto (folders, if there are several).
        workers: processes at work.
    """

    folders: Positional[Annotated[tuple[Path, ...], tyro.conf.arg(metavar="FOLDER...")]]
    output: Annotated[Path, tyro.conf.arg(aliases=["-o"], metavar="DATA")]
    size: Annotated[int, tyro.conf.arg(metavar="PX")] = 192
    min_face: Annotated[int, tyro.conf.arg(metavar="PX")] = 48
    persons: Literal["auto", "folder", "name", "each"] = "auto"
    workers: int = 1

    def run(self) -> int:
        """Makes the data set, and says what was not taken and why."""
        from facefit.cli.prepare import run

        return run(self)


@dataclasses.dataclass(frozen=True)
class Synth:
    """Make a data set of synthetic photographs for training the encoder. Started again, it goes on.

    Attributes:
        output: folder for the data set; made where it is missing.
        count: how many photographs.
        seed: of everything random; the same seed gives the same data.
        model: name of an installed model (`facefit models list`) or a model file.
        size: side of the crops, pixels.
        per_person: photographs of every person.
        graded: spoil each person's photographs, from not at all to hardly usable (turned away, covered,
            blurred): image sets from which a network can learn whom to trust.
        workers: processes at work.
    """

    output: Annotated[Path, tyro.conf.arg(aliases=["-o"], metavar="DATA")]
    count: Annotated[int, tyro.conf.arg(metavar="N")]
    seed: int = 0
    model: Annotated[str, tyro.conf.arg(metavar="NAME|FILE")] = "open"
    size: Annotated[int, tyro.conf.arg(metavar="PX")] = 192
    per_person: int = 3
    graded: tyro.conf.FlagCreatePairsOff[bool] = False
    workers: int = 1

    def run(self) -> int:
        """Makes the data set."""
        from facefit.cli.synth import run

        return run(self)


@dataclasses.dataclass(frozen=True)
class Predict:
    """Predict one person's face from photographs by the encoder alone, without fitting.

    Attributes:
        photos: photographs, all of the same person.
        output: folder for the results, the same as those of `facefit fit`; made where it is missing.
        model: name of an installed model or a model file; it must be the one the encoder was trained for.
        encoder: a trained encoder's file (experiments/export_encoder.py); the embedded one where left out.
        face: which face, where there are several: largest, a number counted from the left, or a point x,y in
            pixels.
    """

    photos: Positional[Annotated[tuple[str, ...], tyro.conf.arg(metavar="PHOTO...")]]
    output: Output
    model: Annotated[str, tyro.conf.arg(metavar="NAME|FILE")] = "open"
    encoder: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    face: Annotated[str, tyro.conf.arg(metavar="largest|N|x,y")] = "largest"

    def run(self) -> int:
        """Predicts, writes, and says what was done."""
        from facefit.cli.predict import run

        return run(self)


@dataclasses.dataclass(frozen=True)
class Doctor:
    """Say what works on this machine, and how to get the rest."""

    def run(self) -> int:
        """Prints the report."""
        from facefit.cli.doctor import run

        return run()


@dataclasses.dataclass(frozen=True)
class ListModels:
    """List the models that can be used by name."""

    def run(self) -> int:
        """Prints a line a model."""
        from facefit.cli.models import run_list

        return run_list()


@dataclasses.dataclass(frozen=True)
class ModelInfo:
    """Say what is in a model.

    Attributes:
        name: name of an installed model, or a model file.
    """

    name: Positional[Annotated[str, tyro.conf.arg(metavar="NAME|FILE")]]

    def run(self) -> int:
        """Prints its sizes, names, measures and licence."""
        from facefit.cli.models import run_info

        return run_info(self.name)


@dataclasses.dataclass(frozen=True)
class ConvertModel:
    """Convert a face model of another project to a facefit model file.

    Attributes:
        path: an ICT-FaceKit folder (FaceXModel) or its compact .npz.
        output: the model file to write, ending in .npz.
    """

    path: Positional[Annotated[Path, tyro.conf.arg(metavar="PATH")]]
    output: Output

    def run(self) -> int:
        """Converts and writes."""
        from facefit.cli.models import run_convert

        return run_convert(self.path, self.output)


@dataclasses.dataclass(frozen=True)
class Models:
    """Face models: list, info, convert."""

    action: (
        Annotated[ListModels, tyro.conf.subcommand("list", prefix_name=False)]
        | Annotated[ModelInfo, tyro.conf.subcommand("info", prefix_name=False)]
        | Annotated[ConvertModel, tyro.conf.subcommand("convert", prefix_name=False)]
    )

    def run(self) -> int:
        """Hands over to the action."""
        return self.action.run()


Command = (
    Annotated[Fit, tyro.conf.subcommand("fit")]
    | Annotated[Predict, tyro.conf.subcommand("predict")]
    | Annotated[Prepare, tyro.conf.subcommand("prepare")]
    | Annotated[Synth, tyro.conf.subcommand("synth")]
    | Annotated[Doctor, tyro.conf.subcommand("doctor")]
    | Annotated[Models, tyro.conf.subcommand("models")]
)


def parse(arguments: Sequence[str] | None = None) -> Fit | Predict | Prepare | Synth | Doctor | Models:
    """The command in `arguments` (default: the process's own).

    Raises:
        InputError: an argument is empty.
        SystemExit: status 0 after --help or --version, 2 after a mistake, which is explained on standard
            error.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if arguments[:1] == ["--version"]:
        import facefit

        print(f"facefit {facefit.__version__}")
        raise SystemExit(0)
    if "" in arguments:  # a path made of it would mean the current folder
        raise InputError("An argument is empty. Check the variables on your command line.")
    return tyro.cli(
        Command,
        prog="facefit",
        description="Photographs become a 3D face. `facefit COMMAND --help` explains a command; "
        "--version tells the version.",
        args=arguments,
        config=(tyro.conf.OmitArgPrefixes, tyro.conf.OmitSubcommandPrefixes),
    )
