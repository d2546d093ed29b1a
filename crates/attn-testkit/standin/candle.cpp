// candle's own kernels (candle-kernels 0.11.1), by name: what each computes, in plain loops. A module of candle's says
// which kernels there are, and of which parameters; here are those that layers, their compositions and the suite use.
#include "driver.hpp"
#include "halves.hpp"

#include <algorithm>
#include <array>
#include <limits>
#include <type_traits>

namespace standin {

// What a type is computed in.
template <class T> using Wide = std::conditional_t<std::is_same_v<T, Bf16> || std::is_same_v<T, F16>, float, T>;

static std::map<std::string, Kernel> kernels;

// ---- Shapes ---------------------------------------------------------------------------------------------------------

// Where element `i` of a shape lies, with `info` being dimensions, then as many strides in each of several sets. Null
// stands for one that is contiguous.
struct Shape {
    size_t n_dims;
    const size_t *info;

    size_t at(size_t i, int set = 0) const {
        if (!info) return i;
        size_t place = 0;
        for (size_t d = n_dims; d-- > 0;) {
            place += i % info[d] * info[n_dims * size_t(1 + set) + d];
            i /= info[d];
        }
        return place;
    }
};

static Shape shape_of(const Launch &launch, int first) { return {launch.arg<size_t>(first), launch.arg<const size_t *>(first + 1)}; }

// ---- Element by element ---------------------------------------------------------------------------------------------

template <class T, class F> static void unary(const std::string &name, F f) {
    kernels[name] = [f](const Launch &launch) {
        const Shape shape = shape_of(launch, 1);
        const T *from = launch.arg<const T *>(3);
        T *to = launch.arg<T *>(4);
        for (size_t i = 0; i < launch.arg<size_t>(0); ++i) to[i] = T(f(Wide<T>(from ? from[shape.at(i)] : to[i])));
        return CUDA_SUCCESS;
    };
}

// With a parameter in front of its operand.
template <class T, class F> static void unary_with(const std::string &name, F f) {
    kernels[name] = [f](const Launch &launch) {
        const Shape shape = shape_of(launch, 1);
        const Wide<T> parameter = launch.arg<T>(3);
        const T *from = launch.arg<const T *>(4);
        T *to = launch.arg<T *>(5);
        for (size_t i = 0; i < launch.arg<size_t>(0); ++i) to[i] = T(f(Wide<T>(from ? from[shape.at(i)] : to[i]), parameter));
        return CUDA_SUCCESS;
    };
}

template <class T, class Out, class F> static void binary(const std::string &name, F f) {
    kernels[name] = [f](const Launch &launch) {
        const Shape shape = shape_of(launch, 1);
        const T *left = launch.arg<const T *>(3), *right = launch.arg<const T *>(4);
        Out *to = launch.arg<Out *>(5);
        for (size_t i = 0; i < launch.arg<size_t>(0); ++i) to[i] = Out(f(Wide<T>(left[shape.at(i)]), Wide<T>(right[shape.at(i, 1)])));
        return CUDA_SUCCESS;
    };
}

template <class S, class T> static void cast(const std::string &name) {
    kernels["cast_" + name] = [](const Launch &launch) {
        const Shape shape = shape_of(launch, 1);
        const S *from = launch.arg<const S *>(3);
        T *to = launch.arg<T *>(4);
        for (size_t i = 0; i < launch.arg<size_t>(0); ++i) to[i] = T(Wide<T>(Wide<S>(from[shape.at(i)])));
        return CUDA_SUCCESS;
    };
}

template <class T> static void casts_from(const std::string &name) {
    cast<T, float>(name + "_f32");
    cast<T, double>(name + "_f64");
    cast<T, Bf16>(name + "_bf16");
    cast<T, F16>(name + "_f16");
    cast<T, uint8_t>(name + "_u8");
    cast<T, uint32_t>(name + "_u32");
    cast<T, int64_t>(name + "_i64");
}

template <class T> static void of_numbers(const std::string &name) {
    using W = Wide<T>;
    kernels["affine_" + name] = [](const Launch &launch) {
        const Shape shape = shape_of(launch, 1);
        const T *from = launch.arg<const T *>(3);
        T *to = launch.arg<T *>(4);
        const W mul = launch.arg<T>(5), add = launch.arg<T>(6);
        // Two operations, each of which is rounded.
        for (size_t i = 0; i < launch.arg<size_t>(0); ++i) to[i] = T(W(T(W(from ? from[shape.at(i)] : to[i]) * mul)) + add);
        return CUDA_SUCCESS;
    };
    kernels["const_set_" + name] = [](const Launch &launch) {
        const Shape shape = shape_of(launch, 1);
        for (size_t i = 0; i < launch.arg<size_t>(0); ++i) launch.arg<T *>(4)[shape.at(i)] = launch.arg<T>(3);
        return CUDA_SUCCESS;
    };
    kernels["copy2d_" + name] = [](const Launch &launch) {
        const T *from = launch.arg<const T *>(0);
        T *to = launch.arg<T *>(1);
        for (size_t row = 0; row < launch.arg<uint32_t>(2); ++row) {
            for (size_t column = 0; column < launch.arg<uint32_t>(3); ++column) {
                to[row * launch.arg<uint32_t>(5) + column] = from[row * launch.arg<uint32_t>(4) + column];
            }
        }
        return CUDA_SUCCESS;
    };
    unary<T>("ucopy_" + name, [](W x) { return x; });
    binary<T, T>("badd_" + name, [](W x, W y) { return x + y; });
    binary<T, T>("bsub_" + name, [](W x, W y) { return x - y; });
    binary<T, T>("bmul_" + name, [](W x, W y) { return x * y; });
    binary<T, T>("bdiv_" + name, [](W x, W y) { return x / y; });
    // The other one where one is NaN.
    binary<T, T>("bmaximum_" + name, [](W x, W y) { return x != x || x < y ? y : x; });
    binary<T, T>("bminimum_" + name, [](W x, W y) { return x != x || y < x ? y : x; });
    binary<T, uint8_t>("eq_" + name, [](W x, W y) { return x == y; });
    binary<T, uint8_t>("ne_" + name, [](W x, W y) { return x != y; });
    binary<T, uint8_t>("lt_" + name, [](W x, W y) { return x < y; });
    binary<T, uint8_t>("le_" + name, [](W x, W y) { return x <= y; });
    binary<T, uint8_t>("gt_" + name, [](W x, W y) { return x > y; });
    binary<T, uint8_t>("ge_" + name, [](W x, W y) { return x >= y; });
    casts_from<T>(name);
}

template <class T> static void of_floats(const std::string &name) {
    using W = Wide<T>;
    unary<T>("uneg_" + name, [](W x) { return -x; });
    unary<T>("urecip_" + name, [](W x) { return 1 / x; });
    unary<T>("uexp_" + name, [](W x) { return std::exp(x); });
    unary<T>("ulog_" + name, [](W x) { return std::log(x); });
    unary<T>("usin_" + name, [](W x) { return std::sin(x); });
    unary<T>("ucos_" + name, [](W x) { return std::cos(x); });
    unary<T>("utanh_" + name, [](W x) { return std::tanh(x); });
    unary<T>("uerf_" + name, [](W x) { return std::erf(x); });
    unary<T>("uceil_" + name, [](W x) { return std::ceil(x); });
    unary<T>("ufloor_" + name, [](W x) { return std::floor(x); });
    unary<T>("uround_" + name, [](W x) { return std::round(x); });
    unary<T>("uabs_" + name, [](W x) { return std::fabs(x); });
    unary<T>("usqr_" + name, [](W x) { return x * x; });
    unary<T>("usqrt_" + name, [](W x) { return std::sqrt(x); });
    unary<T>("urelu_" + name, [](W x) { return x > 0 ? x : W(0); });
    unary<T>("usilu_" + name, [](W x) { return x / (1 + std::exp(-x)); });
    unary<T>("usigmoid_" + name, [](W x) { return 1 / (1 + std::exp(-x)); });
    unary<T>("usign_" + name, [](W x) { return W((x > 0) - (x < 0)); });
    unary_with<T>("upowf_" + name, [](W x, W y) { return std::pow(x, y); });
    unary_with<T>("uelu_" + name, [](W x, W y) { return x > 0 ? x : y * (std::exp(x) - 1); });
}

// ---- Reductions -----------------------------------------------------------------------------------------------------

// To one element for each `width` of them, which are last.
template <class T, class Out, class F> static void reduction(const std::string &name, F reduce) {
    kernels[name] = [reduce](const Launch &launch) {
        const size_t n = launch.arg<size_t>(0), width = launch.arg<size_t>(1);
        const Shape shape = shape_of(launch, 2);
        const T *from = launch.arg<const T *>(4);
        Out *to = launch.arg<Out *>(5);
        // The kernel for small ones is told the number of results, the others that of elements.
        const bool of_results = launch.name.find("_small_") != std::string::npos;
        const size_t results = of_results ? n : width == 0 ? launch.grid[0] : n / width;
        for (size_t i = 0; i < results; ++i) {
            to[i] = Out(reduce(width, [&](size_t j) { return Wide<T>(from[shape.at(i * width + j)]); }));
        }
        return CUDA_SUCCESS;
    };
}

template <class T> static void reductions(const std::string &name) {
    using W = Wide<T>;
    const auto sum = [](size_t n, const auto &at) {
        W total = 0;
        for (size_t i = 0; i < n; ++i) total += at(i);
        return total;
    };
    // The first of the best.
    const auto best = [](auto is_better) {
        return [is_better](size_t n, const auto &at) {
            size_t found = 0;
            for (size_t i = 1; i < n; ++i) {
                if (is_better(at(i), at(found)) || at(found) != at(found)) found = i;
            }
            return found;
        };
    };
    const auto most = best([](W x, W y) { return x > y; }), least = best([](W x, W y) { return x < y; });
    reduction<T, T>("fast_sum_" + name, sum);
    reduction<T, T>("fast_sum_small_" + name, sum);
    reduction<T, T>("fast_max_" + name, [most](size_t n, const auto &at) { return at(most(n, at)); });
    reduction<T, T>("fast_min_" + name, [least](size_t n, const auto &at) { return at(least(n, at)); });
    reduction<T, uint32_t>("fast_argmax_" + name, most);
    reduction<T, uint32_t>("fast_argmin_" + name, least);
}

// ---- Rows -----------------------------------------------------------------------------------------------------------

template <class T> static void rows(const std::string &name) {
    using W = Wide<T>;
    // Rows are as many as there are threads along x.
    kernels["softmax_" + name] = [](const Launch &launch) {
        const size_t columns = size_t(launch.arg<int>(2)), n = size_t(launch.grid[0]) * launch.block[0];
        for (size_t row = 0; row < n; ++row) {
            const T *from = launch.arg<const T *>(0) + row * columns;
            T *to = launch.arg<T *>(1) + row * columns;
            W most = -std::numeric_limits<W>::infinity(), sum = 0;
            for (size_t i = 0; i < columns; ++i) most = std::max(most, W(from[i]));
            for (size_t i = 0; i < columns; ++i) sum += W(to[i] = T(std::exp(W(T(W(from[i]) - most)))));
            for (size_t i = 0; i < columns; ++i) to[i] = T(W(to[i]) * W(T(1 / sum)));
        }
        return CUDA_SUCCESS;
    };
    const auto normed = [](const Launch &launch, bool centred) {
        const int more = centred ? 1 : 0;
        const size_t columns = size_t(launch.arg<int>(3 + more)), n = size_t(launch.grid[0]) * launch.block[1];
        const float eps = launch.arg<float>(5 + more);
        const T *weight = launch.arg<const T *>(2), *bias = centred ? launch.arg<const T *>(3) : nullptr;
        for (size_t row = 0; row < n; ++row) {
            const T *from = launch.arg<const T *>(0) + row * columns;
            T *to = launch.arg<T *>(1) + row * columns;
            float sum = 0, squares = 0;
            for (size_t i = 0; i < columns; ++i) sum += float(from[i]), squares += float(from[i]) * float(from[i]);
            const float mean = centred ? sum / float(columns) : 0;
            const float scale = 1 / std::sqrt(squares / float(columns) - mean * mean + eps);
            for (size_t i = 0; i < columns; ++i) {
                to[i] = T((float(from[i]) - mean) * scale * (weight ? float(weight[i]) : 1) + (bias ? float(bias[i]) : 0));
            }
        }
        return CUDA_SUCCESS;
    };
    kernels["rmsnorm_" + name] = [normed](const Launch &launch) { return normed(launch, false); };
    kernels["layernorm_" + name] = [normed](const Launch &launch) { return normed(launch, true); };

    const auto turned = [](const Launch &launch, size_t pairs, const auto &places) {
        const T *from = launch.arg<const T *>(0), *cos = launch.arg<const T *>(1), *sin = launch.arg<const T *>(2);
        T *to = launch.arg<T *>(3);
        for (size_t i = 0; i < pairs; ++i) {
            const auto [first, second, angle] = places(i);
            const W a = from[first], b = from[second], c = cos[angle], s = sin[angle];
            to[first] = T(W(T(a * c)) - W(T(b * s)));
            to[second] = T(W(T(a * s)) + W(T(b * c)));
        }
        return CUDA_SUCCESS;
    };
    // Angles are those of a batch of their own where it has a stride.
    const auto of_batch = [](size_t i, size_t stride, size_t pairs) { return stride ? 2 * i / stride * pairs : 0; };
    kernels["rope_i_" + name] = [=](const Launch &launch) {
        const size_t bh = launch.arg<uint32_t>(4), td = launch.arg<uint32_t>(5), stride = launch.arg<uint32_t>(6);
        return turned(launch, bh * td / 2, [&](size_t i) {
            return std::array<size_t, 3>{2 * i, 2 * i + 1, i % (td / 2) + of_batch(i, stride, td / 2)};
        });
    };
    kernels["rope_" + name] = [=](const Launch &launch) {
        const size_t bh = launch.arg<uint32_t>(4), td = launch.arg<uint32_t>(5), d = launch.arg<uint32_t>(6);
        const size_t stride = launch.arg<uint32_t>(7);
        return turned(launch, bh * td / 2, [&](size_t i) {
            const size_t row = i / (d / 2), column = i % (d / 2), angle = i % (td / 2) + of_batch(i, stride, td / 2);
            return std::array<size_t, 3>{row * d + column, row * d + column + d / 2, angle};
        });
    };
    kernels["rope_thd_" + name] = [=](const Launch &launch) {
        const size_t b = launch.arg<uint32_t>(4), t = launch.arg<uint32_t>(5), h = launch.arg<uint32_t>(6);
        const size_t d = launch.arg<uint32_t>(7), stride = launch.arg<uint32_t>(8);
        return turned(launch, b * t * h * d / 2, [&](size_t i) {
            const size_t row = i / (d / 2), column = i % (d / 2);
            const size_t angle = row / h % t * (d / 2) + column + of_batch(i, stride, t * d / 2);
            return std::array<size_t, 3>{row * d + column, row * d + column + d / 2, angle};
        });
    };
}

// ---- By index -------------------------------------------------------------------------------------------------------

// An index of all ones stands for nothing; others beyond the end end the kernel, as its assertion does.
template <class I> static bool is_none(I index) { return index == std::numeric_limits<I>::max(); }

template <class I> static bool is_beyond(const Launch &launch, I index, size_t size) {
    if (size_t(index) < size) return false;
    lose(CUDA_ERROR_ASSERT, "%s: index %lld of %zu", launch.name.c_str(), (long long)index, size);
    return true;
}

template <class T, class I> static void indexed(const std::string &name) {
    kernels["is_" + name] = [](const Launch &launch) {
        const I *ids = launch.arg<const I *>(3);
        const T *from = launch.arg<const T *>(4);
        T *to = launch.arg<T *>(5);
        const size_t size = launch.arg<size_t>(7), n_ids = launch.arg<size_t>(8), right = launch.arg<size_t>(9);
        for (size_t i = 0; i < launch.arg<size_t>(0); ++i) {
            const I index = ids[i / right % n_ids];
            if (is_none(index)) {
                to[i] = T(0);
            } else if (is_beyond(launch, index, size)) {
                return CUDA_ERROR_ASSERT;
            } else {
                to[i] = from[(i / (n_ids * right) * size + size_t(index)) * right + i % right];
            }
        }
        return CUDA_SUCCESS;
    };
    kernels["gather_" + name] = [](const Launch &launch) {
        const I *ids = launch.arg<const I *>(1);
        const T *from = launch.arg<const T *>(2);
        T *to = launch.arg<T *>(3);
        const size_t size = launch.arg<size_t>(5), n_ids = launch.arg<size_t>(6), right = launch.arg<size_t>(7);
        for (size_t i = 0; i < launch.arg<size_t>(0); ++i) {
            if (is_none(ids[i])) {
                to[i] = T(0);
            } else if (is_beyond(launch, ids[i], size)) {
                return CUDA_ERROR_ASSERT;
            } else {
                to[i] = from[(i / (n_ids * right) * size + size_t(ids[i])) * right + i % right];
            }
        }
        return CUDA_SUCCESS;
    };
    // One index for a row of the source, or one for each element of it.
    const auto placed = [](const Launch &launch, int first, bool by_row, bool adds) {
        using W = Wide<T>;
        const I *ids = launch.arg<const I *>(0);
        const T *from = launch.arg<const T *>(first);
        T *to = launch.arg<T *>(first + 1);
        const size_t left = launch.arg<size_t>(first + 2), right = launch.arg<size_t>(first + 5);
        const size_t n_ids = by_row ? launch.arg<size_t>(1) : launch.arg<size_t>(first + 3);
        const size_t size = launch.arg<size_t>(first + 4);
        for (size_t i = 0; i < left * n_ids * right; ++i) {
            const I index = by_row ? ids[i / right % n_ids] : ids[i];
            if (is_none(index)) continue;
            if (is_beyond(launch, index, size)) return CUDA_ERROR_ASSERT;
            T &at = to[(i / (n_ids * right) * size + size_t(index)) * right + i % right];
            at = adds ? T(W(at) + W(from[i])) : from[i];
        }
        return CUDA_SUCCESS;
    };
    kernels["ia_" + name] = [placed](const Launch &launch) { return placed(launch, 2, true, true); };
    kernels["sa_" + name] = [placed](const Launch &launch) { return placed(launch, 1, false, true); };
    kernels["s_" + name] = [placed](const Launch &launch) { return placed(launch, 1, false, false); };
    kernels["where_" + name] = [](const Launch &launch) {
        const Shape shape = shape_of(launch, 1);
        const I *ids = launch.arg<const I *>(3);
        const T *yes = launch.arg<const T *>(4), *no = launch.arg<const T *>(5);
        for (size_t i = 0; i < launch.arg<size_t>(0); ++i) {
            launch.arg<T *>(6)[i] = ids[shape.at(i)] ? yes[shape.at(i, 1)] : no[shape.at(i, 2)];
        }
        return CUDA_SUCCESS;
    };
}

template <class T> static void all_of(const std::string &name) {
    of_numbers<T>(name);
    reductions<T>(name);
    indexed<T, uint8_t>("u8_" + name);
    indexed<T, uint32_t>("u32_" + name);
    indexed<T, int64_t>("i64_" + name);
}

template <class T> static void all_of_floats(const std::string &name) {
    all_of<T>(name);
    of_floats<T>(name);
    rows<T>(name);
}

Kernel candle_kernel(const std::string &name) {
    if (kernels.empty()) {
        all_of_floats<float>("f32");
        all_of_floats<double>("f64");
        all_of_floats<Bf16>("bf16");
        all_of_floats<F16>("f16");
        all_of<uint8_t>("u8");
        all_of<uint32_t>("u32");
        all_of<int64_t>("i64");
    }
    const auto found = kernels.find(name);
    return found == kernels.end() ? Kernel() : found->second;
}

} // namespace standin
