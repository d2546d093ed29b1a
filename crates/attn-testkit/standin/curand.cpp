// Random numbers: others than cuRAND's, from a seed.
#include <curand.h>

#include "driver.hpp"

#include <cmath>

using namespace standin;

struct curandGenerator_st {
    uint64_t state = 0;
    cudaStream_t stream = nullptr;

    // In (0, 1]; splitmix64.
    double next() {
        uint64_t x = state += 0x9e3779b97f4a7c15;
        x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9;
        x = (x ^ x >> 27) * 0x94d049bb133111eb;
        return double((x ^ x >> 31) >> 40 | 1) / double(1 << 24);
    }
};

EXPORT curandStatus_t curandCreateGenerator(curandGenerator_t *generator, curandRngType_t) {
    *generator = new curandGenerator_st;
    return CURAND_STATUS_SUCCESS;
}

EXPORT curandStatus_t curandDestroyGenerator(curandGenerator_t generator) {
    delete generator;
    return CURAND_STATUS_SUCCESS;
}

EXPORT curandStatus_t curandSetPseudoRandomGeneratorSeed(curandGenerator_t generator, unsigned long long seed) {
    generator->state = seed;
    return CURAND_STATUS_SUCCESS;
}

EXPORT curandStatus_t curandSetStream(curandGenerator_t generator, cudaStream_t stream) {
    generator->stream = stream;
    return CURAND_STATUS_SUCCESS;
}

template <class T, class F> static curandStatus_t fill(curandGenerator_t generator, T *to, size_t n, F number) {
    if (!standin_is_device_memory(to, n * sizeof(T))) return CURAND_STATUS_LAUNCH_FAILURE;
    const Work work = [=] {
        for (size_t i = 0; i < n; ++i) to[i] = T(number(*generator));
        return CUDA_SUCCESS;
    };
    const auto stream = reinterpret_cast<CUstream>(generator->stream);
    return standin_submit(stream, "curand", &work) ? CURAND_STATUS_LAUNCH_FAILURE : CURAND_STATUS_SUCCESS;
}

static double normal(curandGenerator_st &generator) {
    const double size = std::sqrt(-2 * std::log(generator.next()));
    return size * std::cos(2 * M_PI * generator.next());
}

EXPORT curandStatus_t curandGenerateUniform(curandGenerator_t generator, float *to, size_t n) {
    return fill(generator, to, n, [](curandGenerator_st &from) { return from.next(); });
}

EXPORT curandStatus_t curandGenerateUniformDouble(curandGenerator_t generator, double *to, size_t n) {
    return fill(generator, to, n, [](curandGenerator_st &from) { return from.next(); });
}

EXPORT curandStatus_t curandGenerateNormal(curandGenerator_t generator, float *to, size_t n, float mean, float deviation) {
    if (n % 2 != 0) return CURAND_STATUS_LENGTH_NOT_MULTIPLE;
    return fill(generator, to, n, [=](curandGenerator_st &from) { return mean + deviation * normal(from); });
}

EXPORT curandStatus_t curandGenerateNormalDouble(curandGenerator_t generator, double *to, size_t n, double mean,
                                                 double deviation) {
    if (n % 2 != 0) return CURAND_STATUS_LENGTH_NOT_MULTIPLE;
    return fill(generator, to, n, [=](curandGenerator_st &from) { return mean + deviation * normal(from); });
}
