// The functions of ptx.cuh on the host. Fragments are as the PTX ISA lays them out.

#if DTYPE == DTYPE_F32
DEVICE float to_f32(Element x) { return x; }
DEVICE Element from_f32(float x) { return x; }
#elif DTYPE == DTYPE_BF16
DEVICE float to_f32(Element x) { return __uint_as_float(u32(x.bits) << 16); }
DEVICE Element from_f32(float x) {
    const u32 bits = __float_as_uint(x);
    if (x != x) return Element{0x7fff};
    return Element{u16((bits + 0x7fff + (bits >> 16 & 1)) >> 16)};
}
#else
DEVICE float to_f32(Element x) {
    const u32 sign = u32(x.bits & 0x8000) << 16, rest = x.bits & 0x7fff;
    // Small ones have no exponent of their own; infinity and what is no number keep all bits of theirs.
    if (rest < 0x400) return std::copysign(std::ldexp(float(rest), -24), __uint_as_float(sign));
    return __uint_as_float(sign | ((rest << 13) + (rest < 0x7c00 ? 0x38000000 : 0x70000000)));
}
DEVICE Element from_f32(float x) {
    const u32 bits = __float_as_uint(x), rest = bits & 0x7fffffff;
    const u16 sign = bits >> 16 & 0x8000;
    if (x != x) return Element{0x7fff};
    // From half a unit above the largest one on.
    if (rest >= 0x477ff000) return Element{u16(sign | 0x7c00)};
    if (rest < 0x38800000) return Element{u16(sign | u16(std::nearbyint(std::ldexp(std::fabs(x), 24))))};
    return Element{u16(sign | (rest - 0x38000000 + 0xfff + (rest >> 13 & 1)) >> 13)};
}
#endif

#if DTYPE != DTYPE_F32
DEVICE u32 pair(float low, float high) { return from_f32(low).bits | u32(from_f32(high).bits) << 16; }
#endif

template <int BYTES> DEVICE void check_aligned(const void *at) {
    if (reinterpret_cast<uintptr_t>(at) % BYTES != 0) host::fail("an address is not aligned");
}

template <int BYTES> DEVICE Vector<BYTES> load_once(const void *from) {
    check_aligned<BYTES>(from);
    Vector<BYTES> x;
    std::memcpy(&x, from, BYTES);
    return x;
}

template <class T> DEVICE T load_past_first_cache(const T *from) {
    check_aligned<sizeof(T)>(from);
    return *from;
}

DEVICE u32 shared_address(const void *at) { return u32(static_cast<const char *>(at) - shared); }

template <int BYTES> DEVICE void copy_async(u32 to, const void *from, bool exists) {
    if (exists) check_aligned<BYTES>(from);
    if (to % BYTES != 0) host::fail("an address of shared memory is not aligned");
    std::memset(shared + to, 0xff, BYTES);
    host::current->uncommitted.push_back({shared + to, exists ? static_cast<const char *>(from) : nullptr, BYTES});
}

DEVICE void copies_commit() {
    host::current->groups.push_back(std::move(host::current->uncommitted));
    host::current->uncommitted.clear();
}

template <int PENDING> DEVICE void copies_wait() {
    auto &groups = host::current->groups;
    for (; groups.size() > PENDING; groups.pop_front()) host::arrive(groups.front());
}

DEVICE void barrier(int name, int threads) { host::meet_named(name, threads, "barrier"); }

#if DTYPE != DTYPE_F32
DEVICE void load_rows(u32 (&to)[4], u32 from, bool transposed) {
    const int lane = host::number() % WARP;
    if (from % CHUNK != 0) host::fail("a row of a matrix is not aligned");
    const auto rows = host::of_warp(from, transposed ? "transposed" : "matrices");
    for (int matrix = 0; matrix < 4; ++matrix) {
        to[matrix] = 0;
        for (int i = 0; i < 2; ++i) {
            const int row = transposed ? lane % 4 * 2 + i : lane / 4;
            const int column = transposed ? lane / 4 : lane % 4 * 2 + i;
            u16 element;
            std::memcpy(&element, shared + rows[8 * matrix + row] + 2 * column, 2);
            to[matrix] |= u32(element) << 16 * i;
        }
    }
}

DEVICE void load_matrices(u32 (&to)[4], u32 from) { load_rows(to, from, false); }
DEVICE void load_transposed(u32 (&to)[4], u32 from) { load_rows(to, from, true); }

DEVICE void multiply(float (&c)[4], const u32 (&a)[4], u32 b0, u32 b1) {
    const int lane = host::number() % WARP, g = lane / 4, t = lane % 4;
    const std::array<u32, 6> own = {a[0], a[1], a[2], a[3], b0, b1};
    const auto all = host::of_warp(own, "multiply");
    for (int i = 0; i < 4; ++i) {
        float sum = 0.0f;
        for (int k = 0; k < 16; ++k) {
            // Which lane of a row's, or a column's, four has step k, and in which half of which register.
            const auto part = [&](u32 x) { return to_f32(Element{u16(x >> 16 * (k % 2))}); };
            const u32 row = all[4 * g + k % 8 / 2][k / 8 * 2 + i / 2];
            const u32 column = all[4 * (2 * t + i % 2) + k % 8 / 2][4 + k / 8];
            sum += part(row) * part(column);
        }
        c[i] += sum;
    }
}
#endif

DEVICE float exp2_fast(float x) { return exp2f(x); }
