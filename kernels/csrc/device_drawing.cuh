// Drawing on CUDA: from vertices and their attributes to antialiased pixels in one call, and back.
#pragma once

#include "device_antialiasing.cuh"

namespace facefit {

// What a drawing is made of; see drawing.h.
struct Drawn {
  Meshes mesh;
  Part<float> attributes;
  Part<int32_t> face_index;
  int64_t C;
};

struct Shade {
  Drawn d;
  const Key* keys;
  int32_t* face_index;
  float* hard;

  __device__ void operator()(int64_t b, int64_t at) const {
    const int64_t pixel = b * d.mesh.H * d.mesh.W + at, C = d.C;
    const int32_t face = (int32_t)(unsigned)keys[pixel], *k;  // all ones are -1
    Surface value;
    float* to = hard + (C + 1) * pixel;
    const bool hit = face >= 0 && shown_surface(d.mesh, b, face, at, &k, &value);
    face_index[pixel] = face;
    to[C] = hit ? 1.0f : 0.0f;
    if (!hit) {
      for (int64_t c = 0; c < C; ++c) to[c] = 0;
      return;
    }
    const float *w = value.barycentric, *values = d.attributes.at(b);
    const float *p = values + C * k[0], *q = values + C * k[1], *r = values + C * k[2];
    for (int64_t c = 0; c < C; ++c) to[c] = w[0] * p[c] + w[1] * q[c] + w[2] * r[c];
  }
};

struct ShadeForward {
  Drawn d;
  Part<float> d_clip, d_attributes;
  float* tangent;

  __device__ void operator()(int64_t b, int64_t at) const {
    const int64_t C = d.C;
    const int32_t* k;
    Surface value;
    float* to = tangent + (C + 1) * (b * d.mesh.H * d.mesh.W + at);
    for (int64_t c = 0; c <= C; ++c) to[c] = 0;
    if (!shown_surface(d.mesh, b, d.face_index.at(b)[at], at, &k, &value)) return;
    const float* moving = d_clip.at(b);
    const float* const corner[3] = {moving + 4 * k[0], moving + 4 * k[1], moving + 4 * k[2]};
    float moved[3], unused;
    surface_jvp(value, corner, moved, &unused);
    for (int j = 0; j < 3; ++j) {
      const float *a = d.attributes.at(b) + C * k[j], *da = d_attributes.at(b) + C * k[j];
      for (int64_t c = 0; c < C; ++c) to[c] += value.barycentric[j] * da[c] + moved[j] * a[c];
    }
  }
};

// Gradients of the vertices (group 0) and the attributes (group 1), given that of the hard picture.
struct DrawBackward {
  Drawn d;
  Edged edged;
  Spread gradient;
  Part<float> hard;
  const float* g_hard;

  template <typename Sink>
  __device__ void operator()(int64_t b, int64_t at, Sink& sink) const {
    const int64_t C = d.C;
    const int32_t* k;
    Surface value;
    add_crossings_vjp(edged, gradient, hard.at(b), b, at, sink);
    if (!shown_surface(d.mesh, b, d.face_index.at(b)[at], at, &k, &value)) return;
    const float* from = g_hard + (C + 1) * (b * d.mesh.H * d.mesh.W + at);
    float dot[3];
    for (int j = 0; j < 3; ++j) {
      const float* a = d.attributes.at(b) + C * k[j];
      dot[j] = 0;
      for (int64_t c = 0; c < C; ++c) {
        dot[j] += from[c] * a[c];
        sink(1, C * k[j] + c, value.barycentric[j] * from[c]);
      }
    }
    add_surface_vjp(value, dot, 0.0f, k, sink);
  }
};

// The attributes and the coverage of a picture (H, W, C + 1) apart, and together again.
struct Separate {
  const float* picture;
  int64_t C, pixels;
  float *image, *coverage;

  __device__ void operator()(int64_t b, int64_t at) const {
    const int64_t pixel = b * pixels + at;
    for (int64_t i = 0; i < C; ++i) image[C * pixel + i] = picture[(C + 1) * pixel + i];
    coverage[pixel] = picture[(C + 1) * pixel + C];
  }
};

struct Join {
  Part<float> image, coverage;
  int64_t C, pixels;
  float* picture;

  __device__ void operator()(int64_t b, int64_t at) const {
    float* to = picture + (C + 1) * (b * pixels + at);
    for (int64_t i = 0; i < C; ++i) to[i] = image.at(b)[C * at + i];
    to[C] = coverage.at(b)[at];
  }
};

// vertices (V, 4), faces (F, 3), neighbors (F, 3), attributes (V, C) -> face_index (H, W), edges (H, W, 2, 2),
// hard (H, W, C + 1) of the fine picture; and the picture (H / s, W / s, C) and its coverage.
inline ffi::Error draw(cudaStream_t stream, ffi::ScratchAllocator scratch, Floats vertices, Ints faces, Ints neighbor,
                       Floats attributes, bool cull, IntResult face_index, IntResult edges, FloatResult hard,
                       FloatResult image, FloatResult coverage) {
  Call call(stream, scratch);
  const Batch batch(*coverage, 2);
  const Meshes mesh = meshes_of(batch, vertices, faces, axis(*face_index, 1), axis(*face_index, 0), cull);
  const int64_t B = batch.count(), pixels = (int64_t)mesh.H * mesh.W;
  if (coverage->element_count() == 0) return ffi::Error::Success();
  const SeenSides sides = {batch.part<int32_t>(neighbor, 2), call.memory<float>(B * mesh.F),
                           call.memory<unsigned>(B * mesh.V)};
  const Visible visible = visible_faces(call, mesh, B, &sides);
  const Part<int32_t> shown = batch.part<int32_t>(*face_index, 2);
  const Drawn d = {mesh, batch.part<float>(attributes, 2), shown, axis(attributes, 0)};
  every(call, pixels, B, Shade{d, visible.keys, face_index->typed_data(), hard->typed_data()});
  find_crossings(call, mesh, B, visible.screen, sides, shown, edges->typed_data());
  const Edged edged = {mesh.clip, batch.part<int32_t>(*edges, 4), mesh.V, mesh.H, mesh.W};
  const int64_t samples = mesh.H / axis(*coverage, 1), size = pixels / (samples * samples);
  float* picture = call.memory<float>(B * size * (d.C + 1));
  every(call, size, B, Blend{edged, batch.part<float>(*hard, 3), d.C + 1, samples, false, {}, {}, picture});
  every(call, size, B, Separate{picture, d.C, size, image->typed_data(), coverage->typed_data()});
  return call.status(batch);
}

// vertices, faces, attributes, face_index, edges, hard, tangents of vertices and attributes -> tangents of picture
// and coverage
inline ffi::Error draw_forward(cudaStream_t stream, ffi::ScratchAllocator scratch, Floats vertices, Ints faces,
                               Floats attributes, Ints face_index, Ints edges, Floats hard, Floats d_vertices,
                               Floats d_attributes, FloatResult d_image, FloatResult d_coverage) {
  Call call(stream, scratch);
  const Batch batch(*d_coverage, 2);
  const Meshes mesh = meshes_of(batch, vertices, faces, axis(face_index, 1), axis(face_index, 0));
  const int64_t B = batch.count(), pixels = (int64_t)mesh.H * mesh.W;
  if (d_coverage->element_count() == 0) return ffi::Error::Success();
  const Drawn d = {mesh, batch.part<float>(attributes, 2), batch.part<int32_t>(face_index, 2), axis(attributes, 0)};
  const Part<float> moved = batch.part<float>(d_vertices, 2);
  float* tangent = call.memory<float>(B * pixels * (d.C + 1));
  every(call, pixels, B, ShadeForward{d, moved, batch.part<float>(d_attributes, 2), tangent});
  const int64_t samples = mesh.H / axis(*d_coverage, 1), size = pixels / (samples * samples);
  const Part<float> tangents = {tangent, 1, {B}, {pixels * (d.C + 1)}};
  float* picture = call.memory<float>(B * size * (d.C + 1));
  every(call, size, B,
        Blend{edged_of(batch, vertices, edges), batch.part<float>(hard, 3), d.C + 1, samples, true, moved, tangents,
              picture});
  every(call, size, B, Separate{picture, d.C, size, d_image->typed_data(), d_coverage->typed_data()});
  return call.status(batch);
}

// vertices, faces, attributes, face_index, edges, hard, gradients of picture and coverage -> gradients of vertices and
// attributes
inline ffi::Error draw_backward(cudaStream_t stream, ffi::ScratchAllocator scratch, Floats vertices, Ints faces,
                                Floats attributes, Ints face_index, Ints edges, Floats hard, Floats g_image,
                                Floats g_coverage, FloatResult g_vertices, FloatResult g_attributes) {
  Call call(stream, scratch);
  const Batch batch(*g_vertices, 2);
  const Meshes mesh = meshes_of(batch, vertices, faces, axis(face_index, 1), axis(face_index, 0));
  const int64_t B = batch.count(), pixels = (int64_t)mesh.H * mesh.W, rows = axis(g_coverage, 1);
  if (B == 0 || mesh.V == 0) return ffi::Error::Success();
  const Drawn d = {mesh, batch.part<float>(attributes, 2), batch.part<int32_t>(face_index, 2), axis(attributes, 0)};
  const SumsOf<2> sums = {{sums_of(call, B, 4 * mesh.V, 3 * pixels + most_crossings(pixels)),
                           sums_of(call, B, d.C * mesh.V, 3 * pixels)}};
  if (pixels > 0 && rows > 0) {
    const Edged edged = edged_of(batch, vertices, edges);
    const int64_t samples = mesh.H / rows, size = pixels / (samples * samples);
    float* gradient = call.memory<float>(B * size * (d.C + 1));
    every(call, size, B,
          Join{batch.part<float>(g_image, 3), batch.part<float>(g_coverage, 2), d.C, size, gradient});
    const Spread spread = {{gradient, 1, {B}, {size * (d.C + 1)}}, d.C + 1, mesh.W, samples};
    float* g_hard = call.memory<float>(B * pixels * (d.C + 1));
    every(call, pixels, B, BlendBackwardImage{edged, spread, g_hard});
    add_up(call, pixels, B, sums, DrawBackward{d, edged, spread, batch.part<float>(hard, 3), g_hard});
  }
  write(call, B, sums.group[0], g_vertices->typed_data());
  write(call, B, sums.group[1], g_attributes->typed_data());
  return call.status(batch);
}

}  // namespace facefit
