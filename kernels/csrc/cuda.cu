// The CUDA library's entry points: the names and operands of cpu.cc, on a stream. Compile with --fmad=false and
// --ftz=true: the face indices of all implementations must be equal (see triangle.h), and XLA's CPU code flushes
// denormal numbers.

#include "device_antialiasing.cuh"
#include "device_drawing.cuh"
#include "device_interpolation.cuh"
#include "device_normals.cuh"
#include "device_rasterization.cuh"

using namespace facefit;

#define FACEFIT_STREAM ffi::Ffi::Bind().Ctx<ffi::PlatformStream<cudaStream_t>>().Ctx<ffi::ScratchAllocator>()

XLA_FFI_DEFINE_HANDLER_SYMBOL(facefit_rasterize, rasterize,
                              FACEFIT_STREAM.Arg<Floats>().Arg<Ints>().Attr<bool>("cull").Ret<Ints>().Ret<Floats>()
                                  .Ret<Floats>());
XLA_FFI_DEFINE_HANDLER_SYMBOL(
    facefit_surface_forward, surface_forward,
    FACEFIT_STREAM.Arg<Floats>().Arg<Ints>().Arg<Ints>().Arg<Floats>().Ret<Floats>().Ret<Floats>());
XLA_FFI_DEFINE_HANDLER_SYMBOL(
    facefit_surface_backward, surface_backward,
    FACEFIT_STREAM.Arg<Floats>().Arg<Ints>().Arg<Ints>().Arg<Floats>().Arg<Floats>().Ret<Floats>());
XLA_FFI_DEFINE_HANDLER_SYMBOL(facefit_interpolate, interpolate,
                              FACEFIT_STREAM.Arg<Floats>().Arg<Ints>().Arg<Ints>().Arg<Floats>().Ret<Floats>());
XLA_FFI_DEFINE_HANDLER_SYMBOL(facefit_interpolate_forward, interpolate_forward,
                              FACEFIT_STREAM.Arg<Floats>().Arg<Ints>().Arg<Ints>().Arg<Floats>().Arg<Floats>()
                                  .Arg<Floats>().Ret<Floats>());
XLA_FFI_DEFINE_HANDLER_SYMBOL(facefit_interpolate_backward, interpolate_backward,
                              FACEFIT_STREAM.Arg<Floats>().Arg<Ints>().Arg<Ints>().Arg<Floats>().Arg<Floats>()
                                  .Ret<Floats>().Ret<Floats>());
XLA_FFI_DEFINE_HANDLER_SYMBOL(facefit_neighbors, neighbors, FACEFIT_STREAM.Arg<Ints>().Ret<Ints>());
XLA_FFI_DEFINE_HANDLER_SYMBOL(facefit_crossings, crossings,
                              FACEFIT_STREAM.Arg<Floats>().Arg<Ints>().Arg<Ints>().Arg<Ints>().Ret<Ints>());
XLA_FFI_DEFINE_HANDLER_SYMBOL(facefit_blend, blend,
                              FACEFIT_STREAM.Arg<Floats>().Arg<Ints>().Arg<Floats>().Ret<Floats>());
XLA_FFI_DEFINE_HANDLER_SYMBOL(
    facefit_blend_forward, blend_forward,
    FACEFIT_STREAM.Arg<Floats>().Arg<Ints>().Arg<Floats>().Arg<Floats>().Arg<Floats>().Ret<Floats>());
XLA_FFI_DEFINE_HANDLER_SYMBOL(
    facefit_blend_backward, blend_backward,
    FACEFIT_STREAM.Arg<Floats>().Arg<Ints>().Arg<Floats>().Arg<Floats>().Ret<Floats>().Ret<Floats>());
XLA_FFI_DEFINE_HANDLER_SYMBOL(facefit_draw, draw,
                              FACEFIT_STREAM.Arg<Floats>().Arg<Ints>().Arg<Ints>().Arg<Floats>().Attr<bool>("cull").Ret<Ints>()
                                  .Ret<Ints>().Ret<Floats>().Ret<Floats>().Ret<Floats>());
XLA_FFI_DEFINE_HANDLER_SYMBOL(facefit_draw_forward, draw_forward,
                              FACEFIT_STREAM.Arg<Floats>().Arg<Ints>().Arg<Floats>().Arg<Ints>().Arg<Ints>().Arg<Floats>()
                                  .Arg<Floats>().Arg<Floats>().Ret<Floats>().Ret<Floats>());
XLA_FFI_DEFINE_HANDLER_SYMBOL(facefit_draw_backward, draw_backward,
                              FACEFIT_STREAM.Arg<Floats>().Arg<Ints>().Arg<Floats>().Arg<Ints>().Arg<Ints>().Arg<Floats>()
                                  .Arg<Floats>().Arg<Floats>().Ret<Floats>().Ret<Floats>());
XLA_FFI_DEFINE_HANDLER_SYMBOL(facefit_normals, normals,
                              FACEFIT_STREAM.Arg<Floats>().Arg<Ints>().Ret<Floats>().Ret<Floats>());
XLA_FFI_DEFINE_HANDLER_SYMBOL(facefit_normals_forward, normals_forward,
                              FACEFIT_STREAM.Arg<Floats>().Arg<Ints>().Arg<Floats>().Arg<Floats>().Ret<Floats>());
XLA_FFI_DEFINE_HANDLER_SYMBOL(facefit_normals_backward, normals_backward,
                              FACEFIT_STREAM.Arg<Floats>().Arg<Ints>().Arg<Floats>().Arg<Floats>().Ret<Floats>());
