// Coverage and depth of one triangle at one pixel's centre: the arithmetic that decides which face a pixel shows.
//
// Compile with -ffp-contract=off (nvcc: --fmad=false): the plain-JAX reference does the same operations in the same
// order, and the face indices of both must be equal.
#pragma once

#include <cmath>
#include <cstdint>

#if defined(__x86_64__) && !defined(__CUDACC__)
#include <emmintrin.h>
#endif

#ifdef __CUDACC__
#define FACEFIT_BOTH __host__ __device__ inline
#else
#define FACEFIT_BOTH inline
#endif

namespace facefit {

// Pixels (x / w, y / w); w is 1 in front of the camera, and the vertex's own, scaled, beside and behind it.
struct Vertex {
  float x, y, z, w;
};

// Whether there is an element `index` of `count` ones, in one comparison: what is negative is very large without a sign.
FACEFIT_BOTH bool is_below(int64_t index, int64_t count) { return (uint64_t)index < (uint64_t)count; }

// The corners of face f; false where f is no face or names a vertex that does not exist.
FACEFIT_BOTH bool corners_of(const int32_t* faces, int64_t face_count, int64_t vertex_count, int64_t f,
                             const int32_t** corners) {
  if (!is_below(f, face_count)) return false;
  const int32_t* c = faces + 3 * f;
  *corners = c;
  return is_below(c[0], vertex_count) && is_below(c[1], vertex_count) && is_below(c[2], vertex_count);
}

FACEFIT_BOTH Vertex screen_vertex(const float* clip, float half_width, float half_height) {
  const float x = clip[0], y = clip[1], z = clip[2], w = clip[3];
  const float pixel_x = (x + w) * half_width, pixel_y = (y + w) * half_height;
  const float a = fabsf(x) > fabsf(y) ? fabsf(x) : fabsf(y);
  const float b = fabsf(z) > fabsf(w) ? fabsf(z) : fabsf(w);
  const float largest = a > b ? a : b;
  const bool front = w > 1e-5f * largest;
  const float divisor = front ? w : (largest > 1e-30f ? largest : 1e-30f);
  return {pixel_x / divisor, pixel_y / divisor, z / divisor, front ? 1.0f : w / divisor};
}

// Twice the signed area that an edge spans with the pixel's centre; corners are relative to the centre.
FACEFIT_BOTH float edge_function(float ax, float ay, float bx, float by) { return ax * by - ay * bx; }

// Twice the area of a triangle, signed by the side that is seen; zero where a corner is not in front of the camera.
FACEFIT_BOTH float facing(const Vertex& a, const Vertex& b, const Vertex& c) {
  if (!(a.w == 1.0f && b.w == 1.0f && c.w == 1.0f)) return 0.0f;
  return edge_function(b.x - a.x, b.y - a.y, c.x - a.x, c.y - a.y);
}

// Whether a triangle is seen from behind: its corners go round clockwise in the picture.
FACEFIT_BOTH bool seen_from_behind(const Vertex& a, const Vertex& b, const Vertex& c) {
  if (a.w == 1.0f && b.w == 1.0f && c.w == 1.0f) return facing(a, b, c) > 0;
  const float ab = edge_function(a.x, a.y, b.x, b.y), bc = edge_function(b.x, b.y, c.x, c.y);
  const float ca = edge_function(c.x, c.y, a.x, a.y);
  return (ab * c.w + bc * a.w) + ca * b.w > 0;
}

// What stands for the sign of an edge function that is exactly zero: the centre counts as one a little to the right,
// and on a horizontal edge a little below.
FACEFIT_BOTH float edge_tie(const Vertex& a, const Vertex& b) {
  const float slope_x = a.y * b.w - a.w * b.y;
  return slope_x != 0.0f ? slope_x : a.w * b.x - a.x * b.w;
}

// Whether the centre (px, py) is in the triangle abc and between the near and the far plane; `depth` is z / w there.
FACEFIT_BOTH bool covers(const Vertex& a, const Vertex& b, const Vertex& c, float px, float py, float* depth) {
  const float ax = a.x - px * a.w, ay = a.y - py * a.w;
  const float bx = b.x - px * b.w, by = b.y - py * b.w;
  const float cx = c.x - px * c.w, cy = c.y - py * c.w;
  const float ea = edge_function(bx, by, cx, cy);
  const float eb = edge_function(cx, cy, ax, ay);
  const float ec = edge_function(ax, ay, bx, by);
  // Most centres of a small triangle's window are outside: two signs that differ settle it.
  if ((ea > 0 && (eb < 0 || ec < 0)) || (ea < 0 && (eb > 0 || ec > 0)) || (eb > 0 && ec < 0) || (eb < 0 && ec > 0))
    return false;
  const float total = (ea * a.w + eb * b.w) + ec * c.w;
  const float sa = ea != 0 ? ea : edge_tie(b, c);
  const float sb = eb != 0 ? eb : edge_tie(c, a);
  const float sc = ec != 0 ? ec : edge_tie(a, b);
  if (!((total > 0 && sa > 0 && sb > 0 && sc > 0) || (total < 0 && sa < 0 && sb < 0 && sc < 0))) return false;
  const float d = ((ea * a.z + eb * b.z) + ec * c.z) / total;
  *depth = d;
  return d >= -1.0f && d <= 1.0f;
}

// The pixels a triangle may cover, both ends included; empty where first > last.
struct Bounds {
  short first_x, first_y, last_x, last_y;
};

// Written so that compilers choose instructions for the lesser and the greater: branches here cannot be foreseen.
FACEFIT_BOTH float lesser(float a, float b) { return a < b ? a : b; }
FACEFIT_BOTH float greater(float a, float b) { return a > b ? a : b; }
// These and their like for four numbers ("four.h") let one function serve both.
FACEFIT_BOTH float choose(bool where, float yes, float no) { return where ? yes : no; }
FACEFIT_BOTH bool choose_truth(bool where, bool yes, bool no) { return where ? yes : no; }
FACEFIT_BOTH float root(float a) { return sqrtf(a); }
FACEFIT_BOTH float magnitude(float a) { return fabsf(a); }
FACEFIT_BOTH bool any(bool truth) { return truth; }
FACEFIT_BOTH float least(float a, float b, float c) { return lesser(lesser(a, b), c); }
FACEFIT_BOTH float most(float a, float b, float c) { return greater(greater(a, b), c); }
FACEFIT_BOTH float clamp(float v, float low, float high) { return lesser(greater(v, low), high); }

// The least whole number from v on and the greatest up to v, for v that an int can hold. Without a processor's own
// instruction, which the oldest machines of an architecture lack, ceilf and floorf are calls.
FACEFIT_BOTH int round_up(float v) { return (int)v + (v > (float)(int)v); }
FACEFIT_BOTH int round_down(float v) { return (int)v - (v < (float)(int)v); }

// `blur` widens the bounds of triangles that lie in front of the camera.
FACEFIT_BOTH Bounds bounds(const Vertex& a, const Vertex& b, const Vertex& c, int width, int height,
                           float blur = 0.0f) {
  const Bounds nothing = {1, 1, 0, 0};
  // Not finite: nothing is drawn. (Infinity times zero is NaN too.)
  const float zero = (a.x * 0 + a.y * 0 + a.z * 0 + a.w * 0) + (b.x * 0 + b.y * 0 + b.z * 0 + b.w * 0) +
                     (c.x * 0 + c.y * 0 + c.z * 0 + c.w * 0);
  if (!(zero == 0.0f)) return nothing;
  if ((a.z < -a.w && b.z < -b.w && c.z < -c.w) || (a.z > a.w && b.z > b.w && c.z > c.w)) return nothing;
  const float w = (float)width, h = (float)height;
  if (!(a.w == 1.0f && b.w == 1.0f && c.w == 1.0f)) {
    if ((a.w <= 0 && b.w <= 0 && c.w <= 0) || (a.x < 0 && b.x < 0 && c.x < 0) || (a.y < 0 && b.y < 0 && c.y < 0) ||
        (a.x > w * a.w && b.x > w * b.w && c.x > w * c.w) || (a.y > h * a.w && b.y > h * b.w && c.y > h * c.w))
      return nothing;
    return {0, 0, (short)(width - 1), (short)(height - 1)};
  }
  const float low = 0.5f + blur, high = blur - 0.5f;
  return {(short)round_up(clamp(least(a.x, b.x, c.x) - low, 0, w)),
          (short)round_up(clamp(least(a.y, b.y, c.y) - low, 0, h)),
          (short)round_down(clamp(most(a.x, b.x, c.x) + high, -1, w - 1)),
          (short)round_down(clamp(most(a.y, b.y, c.y) + high, -1, h - 1))};
}

#if defined(__x86_64__) && !defined(__CUDACC__)
#define FACEFIT_FOUR_AT_ONCE
// `bounds` of a triangle in front of the camera, all four ends at once.
class FourBounds {
 public:
  FourBounds(int width, int height, float blur = 0.0f)
      : width_(width), height_(height), blur_(blur),
        reach_(_mm_setr_ps(0.5f + blur, 0.5f + blur, blur - 0.5f, blur - 0.5f)),
        least_(_mm_setr_ps(0, 0, 1.0f - width, 1.0f - height)),
        most_(_mm_setr_ps((float)width, (float)height, 1, 1)) {}

  Bounds of(const Vertex& u, const Vertex& v, const Vertex& w) const {
    const __m128 a = _mm_loadu_ps(&u.x), b = _mm_loadu_ps(&v.x), c = _mm_loadu_ps(&w.x), zero = _mm_setzero_ps();
    const __m128 one = _mm_set1_ps(1), low = _mm_min_ps(_mm_min_ps(a, b), c), high = _mm_max_ps(_mm_max_ps(a, b), c);
    const int front = _mm_movemask_ps(_mm_and_ps(_mm_cmpeq_ps(low, one), _mm_cmpeq_ps(high, one))) & 8;
    const __m128 finite = _mm_add_ps(_mm_add_ps(_mm_mul_ps(a, zero), _mm_mul_ps(b, zero)), _mm_mul_ps(c, zero));
    if (!front || _mm_movemask_ps(_mm_cmpunord_ps(finite, finite))) return bounds(u, v, w, width_, height_, blur_);
    const __m128 beyond = _mm_or_ps(_mm_cmpgt_ps(low, one), _mm_cmplt_ps(high, _mm_set1_ps(-1)));
    if (_mm_movemask_ps(beyond) & 4) return {1, 1, 0, 0};
    // The upper ends are turned round, so that all are rounded up: (x0, y0, -x1, -y1).
    const __m128 ends = _mm_sub_ps(_mm_movelh_ps(low, _mm_xor_ps(high, _mm_set1_ps(-0.0f))), reach_);
    const __m128 within = _mm_min_ps(_mm_max_ps(ends, least_), most_);
    const __m128i whole = _mm_cvttps_epi32(within);
    const __m128i up = _mm_sub_epi32(whole, _mm_castps_si128(_mm_cmpgt_ps(within, _mm_cvtepi32_ps(whole))));
    const __m128i turned = _mm_setr_epi32(0, 0, -1, -1), found = _mm_sub_epi32(_mm_xor_si128(up, turned), turned);
    const int64_t packed = _mm_cvtsi128_si64(_mm_packs_epi32(found, found));
    return {(short)packed, (short)(packed >> 16), (short)(packed >> 32), (short)(packed >> 48)};
  }

 private:
  int width_, height_;
  float blur_;
  __m128 reach_, least_, most_;
};

// `covers` at four centres in a row, with the same arithmetic and without branches: which centres a small triangle covers
// cannot be foreseen. `Front`: all corners are in front of the camera, so that factors of w are one and left out.
template <bool Front>
class FourCenters {
 public:
  // px is the first centre's column; only the first `count` of them count. The rows come later.
  FourCenters(const Vertex& a, const Vertex& b, const Vertex& c, float px, int count)
      : a_(a), b_(b), c_(c), count_(count < 4 ? (1 << count) - 1 : 15) {
    const __m128 x = _mm_add_ps(_mm_set1_ps(px), _mm_setr_ps(0, 1, 2, 3));
    auto relative = [&](const Vertex& v) {
      return _mm_sub_ps(_mm_set1_ps(v.x), Front ? x : _mm_mul_ps(x, _mm_set1_ps(v.w)));
    };
    ax_ = relative(a), bx_ = relative(b), cx_ = relative(c);
    there_ = _mm_cmplt_ps(_mm_setr_ps(0, 1, 2, 3), _mm_set1_ps((float)count));
  }

  // Where the triangle is nearer than `z`, z becomes its depth and `index` its number. All four entries are written,
  // most with what they hold. Bit k of the result is set where an edge function is zero at the k-th centre, so that ties
  // decide: there `covers` itself must be asked.
  int keep_nearest(float py, int32_t number, float* z, int32_t* index) const {
    auto relative = [&](const Vertex& v) { return _mm_set1_ps(Front ? v.y - py : v.y - py * v.w); };
    auto times = [](float x, const __m128& y) { return _mm_mul_ps(y, _mm_set1_ps(x)); };
    auto weighted = [&](const __m128& e, const Vertex& v) { return Front ? e : times(v.w, e); };
    const __m128 ay = relative(a_), by = relative(b_), cy = relative(c_), zero = _mm_setzero_ps();
    const __m128 ea = _mm_sub_ps(_mm_mul_ps(bx_, cy), _mm_mul_ps(by, cx_));
    const __m128 eb = _mm_sub_ps(_mm_mul_ps(cx_, ay), _mm_mul_ps(cy, ax_));
    const __m128 ec = _mm_sub_ps(_mm_mul_ps(ax_, by), _mm_mul_ps(ay, bx_));
    const __m128 low = _mm_min_ps(_mm_min_ps(ea, eb), ec), high = _mm_max_ps(_mm_max_ps(ea, eb), ec);
    const __m128 positive = _mm_cmpgt_ps(low, zero), negative = _mm_cmplt_ps(high, zero);
    const __m128 outside = _mm_and_ps(_mm_cmplt_ps(low, zero), _mm_cmpgt_ps(high, zero));
    const __m128 total = _mm_add_ps(_mm_add_ps(weighted(ea, a_), weighted(eb, b_)), weighted(ec, c_));
    const __m128 d = _mm_div_ps(_mm_add_ps(_mm_add_ps(times(a_.z, ea), times(b_.z, eb)), times(c_.z, ec)), total);
    const __m128 covered = _mm_or_ps(_mm_and_ps(positive, _mm_cmpgt_ps(total, zero)),
                                     _mm_and_ps(negative, _mm_cmplt_ps(total, zero)));
    const __m128 before = _mm_loadu_ps(z);
    const __m128 between = _mm_and_ps(_mm_cmpge_ps(d, _mm_set1_ps(-1)), _mm_cmple_ps(d, _mm_set1_ps(1)));
    const __m128 nearer = _mm_and_ps(_mm_and_ps(_mm_and_ps(covered, there_), between), _mm_cmplt_ps(d, before));
    _mm_storeu_ps(z, _mm_or_ps(_mm_and_ps(nearer, d), _mm_andnot_ps(nearer, before)));
    const __m128i chosen = _mm_castps_si128(nearer), held = _mm_loadu_si128((const __m128i*)index);
    const __m128i kept = _mm_or_si128(_mm_and_si128(chosen, _mm_set1_epi32(number)), _mm_andnot_si128(chosen, held));
    _mm_storeu_si128((__m128i*)index, kept);
    return ~_mm_movemask_ps(_mm_or_ps(_mm_or_ps(positive, negative), outside)) & count_;
  }

 private:
  const Vertex &a_, &b_, &c_;
  int count_;
  __m128 ax_, bx_, cx_, there_;
};
#endif

}  // namespace facefit
