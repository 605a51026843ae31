// Rasterization on CUDA: visible faces, then barycentric coordinates and depth with their derivatives.
//
// A pixel's nearest face is the minimum of 64-bit keys, depth above face index, so that the order in which threads come
// changes nothing and of equal depths the lower index wins.
#pragma once

#include "device_sums.cuh"
#include "silhouette.h"
#include "surface.h"

namespace facefit {

// The meshes of a batch as the device sees them.
struct Meshes {
  Part<float> clip;
  Part<int32_t> faces;
  int64_t V, F;
  int H, W;
  bool cull;  // faces seen from behind are not drawn

  __device__ bool corners(int64_t b, int64_t face, const int32_t** k) const {
    return corners_of(faces.at(b), F, V, face, k);
  }
};

using Key = unsigned long long;

// Depth first, in an order that unsigned integers keep (both zeros are one), then the face.
__device__ inline Key key_of(float depth, int32_t face) {
  unsigned bits = __float_as_uint(depth + 0.0f);
  bits ^= (bits >> 31) ? 0xffffffffu : 0x80000000u;
  return ((Key)bits << 32) | (unsigned)face;
}

__device__ inline void keep_nearest(Key* at, const Vertex& p, const Vertex& q, const Vertex& r, int x, int y,
                                    int32_t face) {
  float depth;
  if (!covers(p, q, r, x + 0.5f, y + 0.5f, &depth)) return;
  const Key key = key_of(depth, face);
  if (key < *at) atomicMin(at, key);  // keys only fall, so that one read too early costs at most a call in vain
}

struct ScreenVertices {
  Part<float> clip;
  int64_t V;
  float half_x, half_y;
  Vertex* out;
  __device__ void operator()(int64_t b, int64_t i) const {
    out[b * V + i] = screen_vertex(clip.at(b) + 4 * i, half_x, half_y);
  }
};

// Triangles by how many pixels their windows hold: one thread does a small one as it comes upon it, a warp each of the
// middle ones and all blocks together each of the large ones, tile by tile, so that none waits for a single thread.
enum { kSmallWindow = 48, kMiddleWindow = 4096, kTileColumns = 32, kTileRows = 8 };

// Which faces wait for more than a thread, of all batch elements: the middle ones from the front, the large from behind.
struct Waiting {
  int64_t* face;  // b F + face
  int64_t capacity;
  unsigned* count;  // of both
};

// The sides that a vertex's faces are seen from, 3 where the surface does not go on across one of its edges.
struct SeenSides {
  Part<int32_t> neighbor;
  float* facing;   // (B, F)
  unsigned* seen;  // (B, V)
};

template <bool Sides>
struct LookAtFaces {
  Meshes mesh;
  const Vertex* screen;
  Key* keys;
  Waiting waiting;
  SeenSides sides;

  __device__ void operator()(int64_t b, int64_t face) const {
    const int32_t* k;
    const bool there = mesh.corners(b, face, &k);
    if (Sides && !there) sides.facing[b * mesh.F + face] = 0;
    if (!there) return;
    const Vertex* s = screen + b * mesh.V;
    const Vertex p = s[k[0]], q = s[k[1]], r = s[k[2]];
    if (Sides) look(b, face, k, facing(p, q, r));
    if (mesh.cull && seen_from_behind(p, q, r)) return;
    const Bounds window = bounds(p, q, r, mesh.W, mesh.H);
    const int columns = window.last_x - window.first_x + 1, rows = window.last_y - window.first_y + 1;
    if (columns <= 0 || rows <= 0) return;
    if (columns * rows > kSmallWindow) {
      const bool middle = columns * rows <= kMiddleWindow;
      const unsigned place = atomicAdd(&waiting.count[middle ? 0 : 1], 1u);
      waiting.face[middle ? (int64_t)place : waiting.capacity - 1 - place] = b * mesh.F + face;
      return;
    }
    Key* picture = keys + b * mesh.H * mesh.W;
    for (int y = window.first_y; y <= window.last_y; ++y)
      for (int x = window.first_x; x <= window.last_x; ++x)
        keep_nearest(picture + (int64_t)y * mesh.W + x, p, q, r, x, y, (int32_t)face);
  }

  __device__ void look(int64_t b, int64_t face, const int32_t* k, float area) const {
    sides.facing[b * mesh.F + face] = area;
    unsigned* seen = sides.seen + b * mesh.V;
    const unsigned side = area > 0 ? 1 : (area < 0 ? 2 : 3);
    unsigned found[3] = {side, side, side};
    const Mesh walls = {nullptr, mesh.faces.at(b), sides.neighbor.at(b), nullptr, nullptr, mesh.V, mesh.F};
    for (int j = 0; j < 3; ++j) {
      const int32_t next = walls.neighbor[3 * face + j];
      if (next >= 0 && next < face) continue;  // seen from the neighbour
      if (!wound_alike(walls, (int32_t)face, j)) found[(j + 1) % 3] = found[(j + 2) % 3] = 3;
    }
    for (int j = 0; j < 3; ++j)
      if ((seen[k[j]] & found[j]) != found[j]) atomicOr(&seen[k[j]], found[j]);
  }
};

static __global__ void waiting_kernel(Meshes mesh, const Vertex* screen, Key* keys, Waiting waiting) {
  const int64_t middle = waiting.count[0], large = waiting.count[1], pixels = (int64_t)mesh.H * mesh.W;
  const int lane = threadIdx.x % 32;
  const int64_t warp = ((int64_t)blockIdx.x * blockDim.x + threadIdx.x) / 32;
  const int64_t warps = (int64_t)gridDim.x * blockDim.x / 32;
  for (int64_t n = warp; n < middle; n += warps) {
    const int64_t b = waiting.face[n] / mesh.F, face = waiting.face[n] % mesh.F;
    const int32_t* k = mesh.faces.at(b) + 3 * face;
    const Vertex *s = screen + b * mesh.V, p = s[k[0]], q = s[k[1]], r = s[k[2]];
    const Bounds window = bounds(p, q, r, mesh.W, mesh.H);
    const int columns = window.last_x - window.first_x + 1, rows = window.last_y - window.first_y + 1;
    for (int i = lane; i < columns * rows; i += 32) {
      const int x = window.first_x + i % columns, y = window.first_y + i / columns;
      keep_nearest(keys + b * pixels + (int64_t)y * mesh.W + x, p, q, r, x, y, (int32_t)face);
    }
  }
  for (int64_t n = 0; n < large; ++n) {
    const int64_t entry = waiting.face[waiting.capacity - 1 - n], b = entry / mesh.F, face = entry % mesh.F;
    const int32_t* k = mesh.faces.at(b) + 3 * face;
    const Vertex *s = screen + b * mesh.V, p = s[k[0]], q = s[k[1]], r = s[k[2]];
    const Bounds window = bounds(p, q, r, mesh.W, mesh.H);
    const int across = (window.last_x - window.first_x) / kTileColumns + 1;
    const int tiles = across * ((window.last_y - window.first_y) / kTileRows + 1);
    // Each face's first tile falls to another block, so that those with few tiles share all blocks out among them.
    const int first = (int)((blockIdx.x + gridDim.x - (unsigned)(n * 37 % gridDim.x)) % gridDim.x);
    for (int tile = first; tile < tiles; tile += gridDim.x) {
      const int x = window.first_x + tile % across * kTileColumns + lane;
      const int y = window.first_y + tile / across * kTileRows + threadIdx.x / 32;
      if (x <= window.last_x && y <= window.last_y)
        keep_nearest(keys + b * pixels + (int64_t)y * mesh.W + x, p, q, r, x, y, (int32_t)face);
    }
  }
}

// The nearest face's key of every pixel (B, H, W), all ones where there is none, and the vertices on the screen (B, V).
struct Visible {
  Key* keys;
  Vertex* screen;
};

// `sides`, where given, is filled on the way.
inline Visible visible_faces(Call& call, const Meshes& mesh, int64_t B, const SeenSides* sides = nullptr) {
  const int64_t pixels = (int64_t)mesh.H * mesh.W;
  const Visible visible = {call.memory<Key>(B * pixels), call.memory<Vertex>(B * mesh.V)};
  const Waiting waiting = {call.memory<int64_t>(B * mesh.F), B * mesh.F, call.memory<unsigned>(2)};
  call.fill(visible.keys, 0xff, B * pixels * sizeof(Key));
  call.fill(waiting.count, 0, 2 * sizeof(unsigned));
  every(call, mesh.V, B, ScreenVertices{mesh.clip, mesh.V, 0.5f * mesh.W, 0.5f * mesh.H, visible.screen});
  if (sides) {
    call.fill(sides->seen, 0, B * mesh.V * sizeof(unsigned));
    every(call, mesh.F, B, LookAtFaces<true>{mesh, visible.screen, visible.keys, waiting, *sides});
  } else {
    every(call, mesh.F, B, LookAtFaces<false>{mesh, visible.screen, visible.keys, waiting, {}});
  }
  if (mesh.F > 0)
    call.launch(waiting_kernel, dim3(512), kTileColumns * kTileRows, mesh, visible.screen, visible.keys, waiting);
  return visible;
}

// The surface that a pixel shows; false where it shows none.
__device__ inline bool shown_surface(const Meshes& mesh, int64_t b, int64_t face, int64_t at, const int32_t** k,
                                     Surface* value) {
  if (!mesh.corners(b, face, k)) return false;
  const float* clip = mesh.clip.at(b);
  const float* const corner[3] = {clip + 4 * (*k)[0], clip + 4 * (*k)[1], clip + 4 * (*k)[2]};
  const float x = column_of(at, mesh.W) + 0.5f, y = row_of(at, mesh.W) + 0.5f;
  return surface_at(corner, x, y, 0.5f * mesh.W, 0.5f * mesh.H, value);
}

struct WriteFragments {
  Meshes mesh;
  const Key* keys;
  int32_t* face_index;
  float *barycentric, *depth;

  __device__ void operator()(int64_t b, int64_t at) const {
    const int64_t to = b * mesh.H * mesh.W + at;
    const int32_t face = (int32_t)(unsigned)keys[to], *k;  // all ones are -1
    Surface value;
    const bool hit = face >= 0;
    if (hit) shown_surface(mesh, b, face, at, &k, &value);
    face_index[to] = face;
    for (int j = 0; j < 3; ++j) barycentric[3 * to + j] = hit ? value.barycentric[j] : 0.0f;
    depth[to] = hit ? value.depth : 1.0f;
  }
};

inline Meshes meshes_of(const Batch& batch, const Floats& vertices, const Ints& faces, int64_t H, int64_t W,
                        bool cull = false) {
  const auto v = vertices.dimensions(), f = faces.dimensions();
  return {batch.part<float>(vertices, 2), batch.part<int32_t>(faces, 2), v[v.size() - 2], f[f.size() - 2], (int)H,
          (int)W, cull};
}

// The axis of a buffer, counted from the last: 0.
template <typename Buffer>
int64_t axis(const Buffer& buffer, int64_t from_last) {
  const auto dims = buffer.dimensions();
  return dims[dims.size() - 1 - from_last];
}

// vertices (V, 4), faces (F, 3) -> face_index (H, W), barycentric (H, W, 3), depth (H, W)
inline ffi::Error rasterize(cudaStream_t stream, ffi::ScratchAllocator scratch, Floats vertices, Ints faces,
                            bool cull, IntResult face_index, FloatResult barycentric, FloatResult depth) {
  Call call(stream, scratch);
  const Batch batch(*face_index, 2);
  const Meshes mesh = meshes_of(batch, vertices, faces, axis(*face_index, 1), axis(*face_index, 0), cull);
  if (face_index->element_count() == 0) return ffi::Error::Success();
  const Visible visible = visible_faces(call, mesh, batch.count());
  every(call, (int64_t)mesh.H * mesh.W, batch.count(),
        WriteFragments{mesh, visible.keys, face_index->typed_data(), barycentric->typed_data(), depth->typed_data()});
  return call.status(batch);
}

struct SurfaceForward {
  Meshes mesh;
  Part<int32_t> face_index;
  Part<float> tangent;
  float *d_barycentric, *d_depth;

  __device__ void operator()(int64_t b, int64_t at) const {
    const int64_t to = b * mesh.H * mesh.W + at;
    const int32_t* k;
    Surface value;
    float moved[3] = {0, 0, 0}, moved_depth = 0;
    if (shown_surface(mesh, b, face_index.at(b)[at], at, &k, &value)) {
      const float* d = tangent.at(b);
      const float* const corner[3] = {d + 4 * k[0], d + 4 * k[1], d + 4 * k[2]};
      surface_jvp(value, corner, moved, &moved_depth);
    }
    for (int j = 0; j < 3; ++j) d_barycentric[3 * to + j] = moved[j];
    d_depth[to] = moved_depth;
  }
};

// vertices (V, 4), faces (F, 3), face_index (H, W), tangent of vertices (V, 4) -> tangents of barycentric and depth
inline ffi::Error surface_forward(cudaStream_t stream, ffi::ScratchAllocator scratch, Floats vertices, Ints faces,
                                  Ints face_index, Floats tangent, FloatResult d_barycentric, FloatResult d_depth) {
  Call call(stream, scratch);
  const Batch batch(*d_depth, 2);
  const Meshes mesh = meshes_of(batch, vertices, faces, axis(*d_depth, 1), axis(*d_depth, 0));
  if (d_depth->element_count() == 0) return ffi::Error::Success();
  every(call, (int64_t)mesh.H * mesh.W, batch.count(),
        SurfaceForward{mesh, batch.part<int32_t>(face_index, 2), batch.part<float>(tangent, 2),
                       d_barycentric->typed_data(), d_depth->typed_data()});
  return call.status(batch);
}

// Adds a surface's gradient to those of its corners, group 0 of the sink.
template <typename Sink>
__device__ void add_surface_vjp(const Surface& value, const float g_barycentric[3], float g_depth, const int32_t* k,
                                Sink& sink) {
  float g[3][4] = {};
  float* const corner[3] = {g[0], g[1], g[2]};
  surface_vjp(value, g_barycentric, g_depth, corner);
  for (int j = 0; j < 3; ++j)
    for (int i = 0; i < 4; ++i) sink(0, 4 * (int64_t)k[j] + i, g[j][i]);
}

struct SurfaceBackward {
  Meshes mesh;
  Part<int32_t> face_index;
  Part<float> g_barycentric, g_depth;

  template <typename Sink>
  __device__ void operator()(int64_t b, int64_t at, Sink& sink) const {
    const int32_t* k;
    Surface value;
    if (shown_surface(mesh, b, face_index.at(b)[at], at, &k, &value))
      add_surface_vjp(value, g_barycentric.at(b) + 3 * at, g_depth.at(b)[at], k, sink);
  }
};

// vertices, faces, face_index, gradients of barycentric (H, W, 3) and depth (H, W) -> gradient of vertices (V, 4)
inline ffi::Error surface_backward(cudaStream_t stream, ffi::ScratchAllocator scratch, Floats vertices, Ints faces,
                                   Ints face_index, Floats g_barycentric, Floats g_depth, FloatResult g_vertices) {
  Call call(stream, scratch);
  const Batch batch(*g_vertices, 2);
  const Meshes mesh = meshes_of(batch, vertices, faces, axis(face_index, 1), axis(face_index, 0));
  if (g_vertices->element_count() == 0) return ffi::Error::Success();
  const int64_t B = batch.count(), pixels = (int64_t)mesh.H * mesh.W;
  const SumsOf<1> sums = {{sums_of(call, B, 4 * mesh.V, 3 * pixels)}};
  add_up(call, pixels, B, sums,
         SurfaceBackward{mesh, batch.part<int32_t>(face_index, 2), batch.part<float>(g_barycentric, 3),
                         batch.part<float>(g_depth, 2)});
  write(call, B, sums.group[0], g_vertices->typed_data());
  return call.status(batch);
}

}  // namespace facefit
