// The library's entry points: what XLA calls by name, each a loop of one of the headers beside this file.

#include "antialiasing.h"
#include "drawing.h"
#include "fragments.h"
#include "interpolation.h"
#include "normals.h"
#include "rasterization.h"
#include "soft_rendering.h"
#include "texturing.h"

using namespace facefit;

#define FACEFIT_POOL ffi::Ffi::Bind().Ctx<ffi::ThreadPool>()

XLA_FFI_DEFINE_HANDLER_SYMBOL(facefit_rasterize, rasterize,
                              FACEFIT_POOL.Arg<Floats>().Arg<Ints>().Attr<bool>("cull").Ret<Ints>().Ret<Floats>()
                                  .Ret<Floats>());
XLA_FFI_DEFINE_HANDLER_SYMBOL(
    facefit_surface_forward, surface_forward,
    FACEFIT_POOL.Arg<Floats>().Arg<Ints>().Arg<Ints>().Arg<Floats>().Ret<Floats>().Ret<Floats>());
XLA_FFI_DEFINE_HANDLER_SYMBOL(
    facefit_surface_backward, surface_backward,
    FACEFIT_POOL.Arg<Floats>().Arg<Ints>().Arg<Ints>().Arg<Floats>().Arg<Floats>().Ret<Floats>());
XLA_FFI_DEFINE_HANDLER_SYMBOL(facefit_fragments, fragments,
                              FACEFIT_POOL.Arg<Floats>().Arg<Ints>().Arg<Floats>().Attr<bool>("cull").Ret<Ints>().Ret<Floats>()
                                  .Ret<Floats>().Ret<Floats>());
XLA_FFI_DEFINE_HANDLER_SYMBOL(facefit_fragments_backward, fragments_backward,
                              FACEFIT_POOL.Arg<Floats>().Arg<Ints>().Arg<Ints>().Arg<Floats>().Arg<Floats>()
                                  .Arg<Floats>().Ret<Floats>());
XLA_FFI_DEFINE_HANDLER_SYMBOL(facefit_interpolate, interpolate,
                              FACEFIT_POOL.Arg<Floats>().Arg<Ints>().Arg<Ints>().Arg<Floats>().Ret<Floats>());
XLA_FFI_DEFINE_HANDLER_SYMBOL(facefit_interpolate_forward, interpolate_forward,
                              FACEFIT_POOL.Arg<Floats>().Arg<Ints>().Arg<Ints>().Arg<Floats>().Arg<Floats>()
                                  .Arg<Floats>().Ret<Floats>());
XLA_FFI_DEFINE_HANDLER_SYMBOL(facefit_interpolate_backward, interpolate_backward,
                              FACEFIT_POOL.Arg<Floats>().Arg<Ints>().Arg<Ints>().Arg<Floats>().Arg<Floats>()
                                  .Ret<Floats>().Ret<Floats>());
XLA_FFI_DEFINE_HANDLER_SYMBOL(facefit_neighbors, neighbors, FACEFIT_POOL.Arg<Ints>().Ret<Ints>());
XLA_FFI_DEFINE_HANDLER_SYMBOL(facefit_crossings, crossings,
                              FACEFIT_POOL.Arg<Floats>().Arg<Ints>().Arg<Ints>().Arg<Ints>().Ret<Ints>());
XLA_FFI_DEFINE_HANDLER_SYMBOL(facefit_blend, blend,
                              FACEFIT_POOL.Arg<Floats>().Arg<Ints>().Arg<Floats>().Ret<Floats>());
XLA_FFI_DEFINE_HANDLER_SYMBOL(
    facefit_blend_forward, blend_forward,
    FACEFIT_POOL.Arg<Floats>().Arg<Ints>().Arg<Floats>().Arg<Floats>().Arg<Floats>().Ret<Floats>());
XLA_FFI_DEFINE_HANDLER_SYMBOL(
    facefit_blend_backward, blend_backward,
    FACEFIT_POOL.Arg<Floats>().Arg<Ints>().Arg<Floats>().Arg<Floats>().Ret<Floats>().Ret<Floats>());
XLA_FFI_DEFINE_HANDLER_SYMBOL(
    facefit_soft_blend, soft_blend,
    FACEFIT_POOL.Arg<Floats>().Arg<Ints>().Arg<Floats>().Arg<Floats>().Arg<Floats>().Arg<Floats>().Ret<Floats>()
        .Ret<Floats>());
XLA_FFI_DEFINE_HANDLER_SYMBOL(facefit_soft_blend_backward, soft_blend_backward,
                              FACEFIT_POOL.Arg<Floats>().Arg<Ints>().Arg<Floats>().Arg<Floats>().Arg<Floats>()
                                  .Arg<Floats>().Arg<Floats>().Arg<Floats>().Arg<Floats>().Ret<Floats>()
                                  .Ret<Floats>().Ret<Floats>().Ret<Floats>());
XLA_FFI_DEFINE_HANDLER_SYMBOL(
    facefit_texture, texture,
    FACEFIT_POOL.Arg<Floats>().Arg<Ints>().Arg<Floats>().Arg<Floats>().Arg<Ints>().Ret<Floats>());
XLA_FFI_DEFINE_HANDLER_SYMBOL(facefit_texture_backward, texture_backward,
                              FACEFIT_POOL.Arg<Floats>().Arg<Ints>().Arg<Floats>().Arg<Floats>().Arg<Ints>()
                                  .Arg<Floats>().Ret<Floats>().Ret<Floats>().Ret<Floats>());
XLA_FFI_DEFINE_HANDLER_SYMBOL(facefit_soft_render, soft_render,
                              FACEFIT_POOL.Arg<Floats>().Arg<Ints>().Arg<Floats>().Arg<Floats>().Arg<Floats>()
                                  .Arg<Floats>().Attr<bool>("cull").Ret<Ints>().Ret<Floats>().Ret<Floats>());
XLA_FFI_DEFINE_HANDLER_SYMBOL(facefit_soft_render_backward, soft_render_backward,
                              FACEFIT_POOL.Arg<Floats>().Arg<Ints>().Arg<Floats>().Arg<Floats>().Arg<Floats>()
                                  .Arg<Ints>().Arg<Floats>().Arg<Floats>().Arg<Floats>().Ret<Floats>()
                                  .Ret<Floats>().Ret<Floats>());
XLA_FFI_DEFINE_HANDLER_SYMBOL(facefit_draw, draw,
                              FACEFIT_POOL.Arg<Floats>().Arg<Ints>().Arg<Ints>().Arg<Floats>().Attr<bool>("cull").Ret<Ints>()
                                  .Ret<Ints>().Ret<Floats>().Ret<Floats>().Ret<Floats>());
XLA_FFI_DEFINE_HANDLER_SYMBOL(facefit_draw_forward, draw_forward,
                              FACEFIT_POOL.Arg<Floats>().Arg<Ints>().Arg<Floats>().Arg<Ints>().Arg<Ints>().Arg<Floats>()
                                  .Arg<Floats>().Arg<Floats>().Ret<Floats>().Ret<Floats>());
XLA_FFI_DEFINE_HANDLER_SYMBOL(facefit_draw_backward, draw_backward,
                              FACEFIT_POOL.Arg<Floats>().Arg<Ints>().Arg<Floats>().Arg<Ints>().Arg<Ints>().Arg<Floats>()
                                  .Arg<Floats>().Arg<Floats>().Ret<Floats>().Ret<Floats>());
XLA_FFI_DEFINE_HANDLER_SYMBOL(facefit_normals, normals,
                              FACEFIT_POOL.Arg<Floats>().Arg<Ints>().Ret<Floats>().Ret<Floats>());
XLA_FFI_DEFINE_HANDLER_SYMBOL(facefit_normals_forward, normals_forward,
                              FACEFIT_POOL.Arg<Floats>().Arg<Ints>().Arg<Floats>().Arg<Floats>().Ret<Floats>());
XLA_FFI_DEFINE_HANDLER_SYMBOL(facefit_normals_backward, normals_backward,
                              FACEFIT_POOL.Arg<Floats>().Arg<Ints>().Arg<Floats>().Arg<Floats>().Ret<Floats>());
