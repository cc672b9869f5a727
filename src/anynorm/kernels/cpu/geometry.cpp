#include "geometry.h"

namespace anynorm {
namespace {

constexpr int64_t kSmallRun = 128;            // shorter runs are merged
constexpr int64_t kLargestTable = 64 << 10;   // values of γ that rows repeat for their positions
constexpr int64_t kLargestRepeat = 64 << 10;  // values of γ that are repeated for its index
constexpr int64_t kShortestPlane = 16;        // shorter ones are slower than the plain formula

// Adjacent dims, as positions in the order.
struct Part {
  int begin, end;
  bool empty() const { return begin == end; }
};

class Finder {
 public:
  Finder(const Order& order, Dims reduced, Dims affine)
      : order_(order), reduced_(reduced), affine_(affine) {}

  bool find(Geometry& g) {
    if (!split()) return false;
    const int64_t given = affine_values();
    spread();
    if (affine_values() > given && affine_values() > kLargestRepeat) return false;
    measure(g);
    return choose(g);
  }
  Dims affine() const { return affine_; }

 private:
  // Outer and sets are kept, runs and length are reduced; in memory they follow each other.
  bool split() {
    outer_ = take(false), runs_ = take(true), sets_ = take(false), length_ = take(true);
    if (runs_.empty()) {
      split_kept();
    } else if (sets_.empty()) {
      split_reduced();
    }
    return length_.end == order_.count;
  }
  Part take(bool reduced) {
    Part part{next_, next_};
    while (part.end < order_.count && is(reduced_, part.end) == reduced) ++part.end;
    next_ = part.end;
    return part;
  }
  // Every value is a set of its own.  The dims from the first one of γ on are columns.
  void split_kept() {
    const int first = first_affine(outer_);
    sets_ = {first == outer_.end ? outer_.begin : first, outer_.end};
    outer_.end = sets_.begin;
    runs_ = {sets_.begin, sets_.begin};
  }
  // A set is one row, or several of the same γ.
  void split_reduced() {
    const int first = first_affine(runs_);
    length_ = {first == runs_.end ? runs_.begin : first, runs_.end};
    runs_.end = length_.begin;
    sets_ = {length_.begin, length_.begin};
  }

  // γ's index is linear in those of outer, run, set and value only if it is so for every dim of
  // theirs, or for the last dims of outer and the first ones of length.
  void spread() {
    repeat({first_affine(outer_), outer_.end});
    if (has_affine(runs_)) repeat(runs_);
    if (has_affine(sets_)) repeat(sets_);
    repeat({length_.begin, behind_affine(length_)});
    // The columns pattern supports one γ for each value of a set, or one for all.
    if (!is_row() && has_affine(length_)) repeat(length_);
  }
  void repeat(Part part) {
    for (int i = part.begin; i < part.end; ++i) affine_ |= dim_bit(order_.dims[i]);
  }

  void measure(Geometry& g) const {
    g.outer = size(outer_), g.runs = size(runs_), g.sets = size(sets_), g.length = size(length_);
    g.affine_period = size({first_affine(outer_), outer_.end});
    g.affine_repeat = size({behind_affine(length_), length_.end});
    const int64_t in_set = g.length / g.affine_repeat;
    const int64_t in_run = in_set * (has_affine(sets_) ? g.sets : 1);
    g.affine_set = has_affine(sets_) ? in_set : 0;
    g.affine_run = has_affine(runs_) ? in_run : 0;
    g.affine_outer = in_run * (has_affine(runs_) ? g.runs : 1);
    g.affine = g.affine_outer * g.affine_period;
  }

  bool choose(Geometry& g) const {
    if (is_row()) return choose_row(g), true;
    if (g.affine_run) {  // columns have the same γ in every row
      g.pattern = Pattern::planes;
      return g.length >= kShortestPlane && !has_affine(length_);
    }
    const bool small = g.length < kSmallRun || has_affine(length_);
    g.pattern = small ? Pattern::columns : Pattern::planes;
    return true;
  }
  // The rows pattern repeats a γ for all of its values; if these are many, each γ has its own run.
  static void choose_row(Geometry& g) {
    const bool several = g.affine_repeat < g.length || g.affine == 1;
    const bool few = g.affine_repeat < kSmallRun && g.affine_period * g.length <= kLargestTable;
    g.pattern = (several && few) || g.affine_repeat == 1 ? Pattern::rows : Pattern::planes;
    if (g.pattern == Pattern::rows) return;
    g.runs = g.length / g.affine_repeat;
    g.length = g.affine_repeat;
    g.affine_run = g.runs > 1 ? 1 : 0;
    if (g.runs == 1) choose_sets(g);
  }
  // Adjacent runs that are separate sets: a kernel processes several at a time.
  static void choose_sets(Geometry& g) {
    g.sets = g.affine_period > 1 ? g.affine_period : g.outer;
    g.outer /= g.sets;
    g.affine_set = g.affine_period > 1 ? g.affine_outer : 0;
    g.affine_period = 1, g.affine_outer = 0;
  }
  bool is_row() const { return runs_.empty() && sets_.empty() && !length_.empty(); }

  bool is(Dims dims, int i) const { return dims >> order_.dims[i] & 1; }
  int first_affine(Part part) const {
    while (part.begin < part.end && !is(affine_, part.begin)) ++part.begin;
    return part.begin;
  }
  int behind_affine(Part part) const {
    while (part.begin < part.end && !is(affine_, part.end - 1)) --part.end;
    return part.end;
  }
  bool has_affine(Part part) const { return first_affine(part) < part.end; }
  int64_t size(Part part) const {
    int64_t product = 1;
    for (int i = part.begin; i < part.end; ++i) product *= order_.sizes[i];
    return product;
  }
  int64_t affine_values() const {
    int64_t product = 1;
    for (int i = 0; i < order_.count; ++i) product *= is(affine_, i) ? order_.sizes[i] : 1;
    return product;
  }

  const Order& order_;
  const Dims reduced_;
  Dims affine_;
  int next_ = 0;
  Part outer_, runs_, sets_, length_;
};

}  // namespace

Order memory_order(int rank, const int64_t* sizes, const int64_t* strides) {
  Order order;
  for (int dim = 0; dim < rank; ++dim) {
    if (sizes[dim] == 1) continue;
    int place = order.count++;
    for (; place > 0 && strides[order.dims[place - 1]] < strides[dim]; --place) {
      order.dims[place] = order.dims[place - 1];
    }
    order.dims[place] = dim;
  }
  for (int i = 0; i < order.count; ++i) order.sizes[i] = sizes[order.dims[i]];
  return order;
}

bool is_dense(const Order& order, const int64_t* strides) {
  int64_t expected = 1;
  for (int i = order.count; i-- > 0; expected *= order.sizes[i]) {
    if (strides[order.dims[i]] != expected) return false;
  }
  return true;
}

bool find_geometry(const Order& order, Dims reduced, Dims& affine, Geometry& geometry) {
  Finder finder(order, reduced, affine);
  if (!finder.find(geometry)) return false;
  affine = finder.affine();
  return true;
}

}  // namespace anynorm
