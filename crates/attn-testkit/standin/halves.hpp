// bf16 and f16 on the host: numbers in memory; arithmetic is in f32, rounded to the nearest, as on a GPU.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>

namespace standin {

inline uint32_t bits_of(float x) {
    uint32_t bits;
    std::memcpy(&bits, &x, 4);
    return bits;
}

inline float float_of(uint32_t bits) {
    float x;
    std::memcpy(&x, &bits, 4);
    return x;
}

struct Bf16 {
    uint16_t bits;
    Bf16() = default;
    Bf16(float x) {
        const uint32_t wide = bits_of(x);
        bits = x != x ? 0x7fff : uint16_t((wide + 0x7fff + (wide >> 16 & 1)) >> 16);
    }
    operator float() const { return float_of(uint32_t(bits) << 16); }
};

struct F16 {
    uint16_t bits;
    F16() = default;
    F16(float x) {
        const uint32_t wide = bits_of(x), sign = wide >> 16 & 0x8000;
        const float size = std::fabs(x);
        if (x != x) {
            bits = 0x7fff;
        } else if (size >= 65520.0f) {
            bits = uint16_t(sign | 0x7c00);
        } else if (size < 6.103515625e-05f) {
            // Subnormal: multiples of 2^-24, rounded by the host to the nearest even.
            bits = uint16_t(sign | uint32_t(std::nearbyint(size * 16777216.0f)));
        } else {
            const uint32_t rounded = (wide & 0x7fffffff) + 0xfff + (wide >> 13 & 1);
            bits = uint16_t(sign | (rounded - (112u << 23)) >> 13);
        }
    }
    operator float() const {
        const uint32_t sign = uint32_t(bits & 0x8000) << 16, rest = bits & 0x7fff;
        if (rest >= 0x7c00) return float_of(sign | 0x7f800000 | (rest & 0x3ff) << 13);
        if (rest < 0x400) return float_of(sign | bits_of(float(rest) / 16777216.0f));
        return float_of(sign | ((rest << 13) + (112u << 23)));
    }
};

} // namespace standin
