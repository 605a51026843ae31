// Antialiasing on CUDA: neighbours of faces, the edges between pixels, the blend and its derivatives.
//
// Every pixel gathers what the pairs around it give to it, in the order in which the CPU comes to them, so that pictures
// need no atomic additions; only the gradient of the vertices does.
#pragma once

#include "device_rasterization.cuh"
#include "silhouette.h"

namespace facefit {

// An edge of a mesh by its two vertices; edge 3 f + k is opposite to corner k of face f.
__device__ inline void ends_of_edge(const int32_t* faces, int64_t edge, int32_t* low, int32_t* high) {
  const int64_t base = edge - edge % 3;
  const int32_t p = faces[base + (edge + 1) % 3], q = faces[base + (edge + 2) % 3];
  *low = p < q ? p : q, *high = p < q ? q : p;
}

// Lists of edges that fall into the same bucket: `first` of each bucket, `next` of each edge, -1 at the end. The order
// within a list changes from run to run; what is found in it does not.
struct EdgeLists {
  Part<int32_t> faces;
  int64_t edges, buckets;  // buckets: a power of two
  int32_t *first, *next;

  __device__ int64_t bucket(int32_t low, int32_t high) const {
    return ((unsigned)low * 0x9e3779b1u ^ (unsigned)high * 0x85ebca77u) & (unsigned)(buckets - 1);
  }
  __device__ void operator()(int64_t b, int64_t edge) const {
    int32_t low, high;
    ends_of_edge(faces.at(b), edge, &low, &high);
    next[b * edges + edge] = atomicExch(&first[b * buckets + bucket(low, high)], (int32_t)edge);
  }
};

struct FindNeighbors {
  EdgeLists lists;
  int32_t* out;

  __device__ void operator()(int64_t b, int64_t edge) const {
    const int32_t* faces = lists.faces.at(b);
    int32_t low, high, match = -1, matches = 0;
    ends_of_edge(faces, edge, &low, &high);
    if (low >= 0)
      for (int32_t other = lists.first[b * lists.buckets + lists.bucket(low, high)]; other >= 0 && matches < 2;
           other = lists.next[b * lists.edges + other]) {
        int32_t l, h;
        ends_of_edge(faces, other, &l, &h);
        if (other != edge && l == low && h == high) match = other, ++matches;
      }
    out[b * lists.edges + edge] = matches == 1 ? match / 3 : -1;
  }
};

// faces (F, 3) -> (F, 3): the face across the edge opposite each corner; -1 where there is none or more than one.
inline ffi::Error neighbors(cudaStream_t stream, ffi::ScratchAllocator scratch, Ints faces, IntResult result) {
  Call call(stream, scratch);
  const Batch batch(*result, 2);
  const int64_t B = batch.count(), edges = 3 * axis(*result, 1);
  if (result->element_count() == 0) return ffi::Error::Success();
  EdgeLists lists = {batch.part<int32_t>(faces, 2), edges, 16, nullptr, nullptr};
  while (lists.buckets < edges) lists.buckets *= 2;
  lists.first = call.memory<int32_t>(B * lists.buckets), lists.next = call.memory<int32_t>(B * edges);
  call.fill(lists.first, 0xff, B * lists.buckets * sizeof(int32_t));
  every(call, edges, B, lists);
  every(call, edges, B, FindNeighbors{lists, result->typed_data()});
  return call.status(batch);
}

// From which sides the faces around a vertex are seen, as the rims that a walk asks for.
struct FindRims {
  int64_t V;
  const unsigned* seen;
  uint8_t* rim;
  __device__ void operator()(int64_t b, int64_t i) const { rim[b * V + i] = seen[b * V + i] == 3; }
};

// Sides without rasterizing, for a picture that is there already.
struct LookAtSides {
  LookAtFaces<true> faces;
  __device__ void operator()(int64_t b, int64_t face) const {
    const int32_t* k;
    const bool there = faces.mesh.corners(b, face, &k);
    const Vertex* s = faces.screen + b * faces.mesh.V;
    if (there) return faces.look(b, face, k, facing(s[k[0]], s[k[1]], s[k[2]]));
    faces.sides.facing[b * faces.mesh.F + face] = 0;
  }
};

struct FindCrossings {
  Meshes mesh;
  const Vertex* screen;
  SeenSides sides;
  const uint8_t* rim;
  Part<int32_t> face_index;
  int32_t* edges;

  __device__ void operator()(int64_t b, int64_t at) const {
    const int x = column_of(at, mesh.W), y = row_of(at, mesh.W);
    const int32_t *shown = face_index.at(b), *k;
    const Mesh walls = {screen + b * mesh.V,       mesh.faces.at(b), sides.neighbor.at(b), sides.facing + b * mesh.F,
                        rim + b * mesh.V, mesh.V,           mesh.F};
    auto face = [&](int64_t pixel) { return mesh.corners(b, shown[pixel], &k) ? shown[pixel] : -1; };
    const int32_t here = face(at);
    int32_t found[4] = {kContinuous, kContinuous, kContinuous, kContinuous};
    if (x + 1 < mesh.W) discontinuity(walls, here, face(at + 1), x + 0.5f, y + 0.5f, 1, 0, found, found + 1);
    if (y + 1 < mesh.H) discontinuity(walls, here, face(at + mesh.W), x + 0.5f, y + 0.5f, 0, 1, found + 2, found + 3);
    reinterpret_cast<int4*>(edges)[b * mesh.H * mesh.W + at] = make_int4(found[0], found[1], found[2], found[3]);
  }
};

// `sides` filled for the faces of `mesh`, whose vertices on the screen are `screen`.
inline void find_crossings(Call& call, const Meshes& mesh, int64_t B, const Vertex* screen, const SeenSides& sides,
                           const Part<int32_t>& face_index, int32_t* edges) {
  uint8_t* rim = call.memory<uint8_t>(B * mesh.V);
  every(call, mesh.V, B, FindRims{mesh.V, sides.seen, rim});
  every(call, (int64_t)mesh.H * mesh.W, B, FindCrossings{mesh, screen, sides, rim, face_index, edges});
}

// vertices (V, 4), faces (F, 3), neighbors (F, 3), face_index (H, W) -> (H, W, 2, 2); as in antialiasing.h.
inline ffi::Error crossings(cudaStream_t stream, ffi::ScratchAllocator scratch, Floats vertices, Ints faces,
                            Ints neighbor, Ints face_index, IntResult result) {
  Call call(stream, scratch);
  const Batch batch(*result, 4);
  const Meshes mesh = meshes_of(batch, vertices, faces, axis(*result, 3), axis(*result, 2));
  const int64_t B = batch.count();
  if (result->element_count() == 0) return ffi::Error::Success();
  const SeenSides sides = {batch.part<int32_t>(neighbor, 2), call.memory<float>(B * mesh.F),
                           call.memory<unsigned>(B * mesh.V)};
  Vertex* screen = call.memory<Vertex>(B * mesh.V);
  call.fill(sides.seen, 0, B * mesh.V * sizeof(unsigned));
  every(call, mesh.V, B, ScreenVertices{mesh.clip, mesh.V, 0.5f * mesh.W, 0.5f * mesh.H, screen});
  every(call, mesh.F, B, LookAtSides{{mesh, screen, nullptr, {}, sides}});
  find_crossings(call, mesh, B, screen, sides, batch.part<int32_t>(face_index, 2), result->typed_data());
  return call.status(batch);
}

// Pictures of a batch and the edges that cross between their pixels.
struct Edged {
  Part<float> clip;
  Part<int32_t> edges;
  int64_t V, H, W;

  __device__ Pairs pairs(int64_t b) const { return {clip.at(b), edges.at(b), V, H, W}; }
};

// Calls each(pair, crossing, ends) for the pairs around the pixel (x, y) whose first pixel is at most `before` to the
// left or above and `after` to the right or below, in the order of their first pixels.
template <typename Each>
__device__ void every_pair_around(const Pairs& pairs, int64_t x, int64_t y, int before, int after, const Each& each) {
  Crossing c;
  Pair pair;
  auto look = [&](int64_t px, int64_t py, int down) {
    if (px < 0 || py < 0 || px >= pairs.W || py >= pairs.H) return;
    if (pair_at(pairs, px, py, down, &c, &pair)) each(pair, c, pairs.ends(px, py, down));
  };
  for (int i = -before; i < 0; ++i) look(x, y + i, 1);
  for (int i = -before; i < 0; ++i) look(x + i, y, 0);
  look(x, y, 0), look(x, y, 1);
  for (int i = 1; i <= after; ++i) look(x + i, y, 0);
  for (int i = 1; i <= after; ++i) look(x, y + i, 1);
}

// A picture (B, H, W, C), blended and averaged over `samples` x `samples` pixels, or the change of that for a change of
// the vertices and of the picture, where `forward` is true.
struct Blend {
  Edged edged;
  Part<float> image;
  int64_t C, samples;
  bool forward;
  Part<float> d_clip, d_image;
  float* out;

  __device__ void operator()(int64_t b, int64_t at) const {
    const int64_t width = edged.W / samples, height = edged.H / samples;
    const Pairs pairs = edged.pairs(b);
    const float* from = (forward ? d_image : image).at(b);
    const float share = 1.0f / (samples * samples);
    float* to = out + C * (b * height * width + at);
    for (int64_t s = 0; s < samples * samples; ++s) {
      const int64_t x = column_of(at, width) * samples + column_of(s, samples);
      const int64_t y = row_of(at, width) * samples + row_of(s, samples), pixel = y * edged.W + x;
      for (int64_t i = 0; i < C; ++i) to[i] = (s ? to[i] : 0.0f) + share * from[C * pixel + i];
      every_pair_around(pairs, x, y, 1, 0, [&](const Pair& pair, const Crossing& c, const int32_t* ends) {
        if (pair.changed != pixel) return;
        float d_gain, unused;
        const float moved =
            forward ? crossing_jvp(c, d_clip.at(b) + 4 * ends[0], d_clip.at(b) + 4 * ends[1]) : 0.0f;
        for (int64_t i = 0; i < C; ++i) {
          float gain = pair.gain(from + i, C, &unused);
          if (forward) pair.gain(image.at(b) + i, C, &d_gain), gain += moved * d_gain;
          to[i] += share * gain;
        }
      });
    }
  }
};

// A gradient (H / samples, W / samples, C), spread over the pixels that were averaged.
struct Spread {
  Part<float> gradient;
  int64_t C, W, samples;

  __device__ const float* at(int64_t b, int64_t pixel) const {
    const int64_t share = samples == 1 ? pixel : row_of(row_of(pixel, W), samples) * (W / samples) +
                                                     row_of(column_of(pixel, W), samples);
    return gradient.at(b) + C * share;
  }
};

// The gradient of the picture before the blend.
struct BlendBackwardImage {
  Edged edged;
  Spread gradient;
  float* g_image;

  __device__ void operator()(int64_t b, int64_t pixel) const {
    const int64_t C = gradient.C;
    const float share = 1.0f / (gradient.samples * gradient.samples), *own = gradient.at(b, pixel);
    float* g = g_image + C * (b * edged.H * edged.W + pixel);
    for (int64_t i = 0; i < C; ++i) g[i] = share * own[i];
    every_pair_around(edged.pairs(b), column_of(pixel, edged.W), row_of(pixel, edged.W), 2, 1,
                      [&](const Pair& pair, const Crossing&, const int32_t*) {
                        float weight = 0;
                        if (pair.first == pixel) weight += pair.weight + pair.slope_first;
                        if (pair.second == pixel) weight += -pair.weight - pair.slope_second;
                        if (pair.before == pixel) weight -= pair.slope_first;
                        if (pair.after == pixel) weight += pair.slope_second;
                        if (weight == 0) return;
                        const float* to = gradient.at(b, pair.changed);
                        for (int64_t i = 0; i < C; ++i) g[i] += weight * (share * to[i]);
                      });
  }
};

// Adds to group 0 of the sink what the edges between a pixel and the next ones to the right and below give to the
// vertices.
template <typename Sink>
__device__ void add_crossings_vjp(const Edged& edged, const Spread& gradient, const float* image, int64_t b,
                                  int64_t pixel, Sink& sink) {
  const int64_t C = gradient.C;
  const float share = 1.0f / (gradient.samples * gradient.samples);
  every_pair_around(edged.pairs(b), column_of(pixel, edged.W), row_of(pixel, edged.W), 0, 0,
                    [&](const Pair& pair, const Crossing& c, const int32_t* ends) {
                      const float* to = gradient.at(b, pair.changed);
                      float moved = 0, d_gain, g[2][4] = {};
                      for (int64_t i = 0; i < C; ++i) {
                        pair.gain(image + i, C, &d_gain);
                        moved += (share * to[i]) * d_gain;
                      }
                      crossing_vjp(c, moved, g[0], g[1]);
                      for (int j = 0; j < 2; ++j)
                        for (int i = 0; i < 4; ++i) sink(0, 4 * (int64_t)ends[j] + i, g[j][i]);
                    });
}

// At most so many contributions come to a vertex from the edges of a picture.
inline int64_t most_crossings(int64_t pixels) { return 4 * pixels; }

struct BlendBackwardVertices {
  Edged edged;
  Spread gradient;
  Part<float> image;

  template <typename Sink>
  __device__ void operator()(int64_t b, int64_t pixel, Sink& sink) const {
    add_crossings_vjp(edged, gradient, image.at(b), b, pixel, sink);
  }
};

inline Edged edged_of(const Batch& batch, const Floats& vertices, const Ints& edges) {
  return {batch.part<float>(vertices, 2), batch.part<int32_t>(edges, 4), axis(vertices, 1), axis(edges, 3),
          axis(edges, 2)};
}

// vertices (V, 4), edges (H, W, 2, 2), image (H, W, C) -> (H, W, C)
inline ffi::Error blend(cudaStream_t stream, ffi::ScratchAllocator scratch, Floats vertices, Ints edges, Floats image,
                        FloatResult out) {
  Call call(stream, scratch);
  const Batch batch(*out, 3);
  const Edged edged = edged_of(batch, vertices, edges);
  if (out->element_count() == 0) return ffi::Error::Success();
  every(call, edged.H * edged.W, batch.count(),
        Blend{edged, batch.part<float>(image, 3), axis(*out, 0), 1, false, {}, {}, out->typed_data()});
  return call.status(batch);
}

// vertices, edges, image, tangents of vertices and image -> tangent of the result
inline ffi::Error blend_forward(cudaStream_t stream, ffi::ScratchAllocator scratch, Floats vertices, Ints edges,
                                Floats image, Floats d_vertices, Floats d_image, FloatResult out) {
  Call call(stream, scratch);
  const Batch batch(*out, 3);
  const Edged edged = edged_of(batch, vertices, edges);
  if (out->element_count() == 0) return ffi::Error::Success();
  every(call, edged.H * edged.W, batch.count(),
        Blend{edged, batch.part<float>(image, 3), axis(*out, 0), 1, true, batch.part<float>(d_vertices, 2),
              batch.part<float>(d_image, 3), out->typed_data()});
  return call.status(batch);
}

// vertices, edges, image, gradient of the result -> gradients of vertices and image
inline ffi::Error blend_backward(cudaStream_t stream, ffi::ScratchAllocator scratch, Floats vertices, Ints edges,
                                 Floats image, Floats gradient, FloatResult g_vertices, FloatResult g_image) {
  Call call(stream, scratch);
  const Batch batch(*g_image, 3);
  const Edged edged = edged_of(batch, vertices, edges);
  const int64_t B = batch.count(), pixels = edged.H * edged.W, C = axis(*g_image, 0);
  const Spread spread = {batch.part<float>(gradient, 3), C, edged.W, 1};
  if (g_image->element_count() > 0)
    every(call, pixels, B, BlendBackwardImage{edged, spread, g_image->typed_data()});
  if (g_vertices->element_count() > 0) {
    const SumsOf<1> sums = {{sums_of(call, B, 4 * edged.V, most_crossings(pixels))}};
    if (C > 0) add_up(call, pixels, B, sums, BlendBackwardVertices{edged, spread, batch.part<float>(image, 3)});
    write(call, B, sums.group[0], g_vertices->typed_data());
  }
  return call.status(batch);
}

}  // namespace facefit
