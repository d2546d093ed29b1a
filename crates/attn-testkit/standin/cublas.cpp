// The products of matrices that candle asks cuBLAS for, with sums in f32, or in f64.
#include <cublas_v2.h>

#include "driver.hpp"
#include "halves.hpp"

using namespace standin;

struct cublasContext {
    cudaStream_t stream = nullptr;
    cublasMath_t mode = CUBLAS_DEFAULT_MATH;
};

static CUstream stream_of(cublasHandle_t handle) { return reinterpret_cast<CUstream>(handle->stream); }

EXPORT cublasStatus_t cublasCreate_v2(cublasHandle_t *handle) {
    // A context must be current, since the handle is for its device.
    CUdevice device;
    if (cuCtxGetDevice(&device)) return CUBLAS_STATUS_NOT_INITIALIZED;
    *handle = new cublasContext;
    return CUBLAS_STATUS_SUCCESS;
}

EXPORT cublasStatus_t cublasDestroy_v2(cublasHandle_t handle) {
    delete handle;
    return CUBLAS_STATUS_SUCCESS;
}

EXPORT cublasStatus_t cublasSetStream_v2(cublasHandle_t handle, cudaStream_t stream) {
    handle->stream = stream;
    return CUBLAS_STATUS_SUCCESS;
}

EXPORT cublasStatus_t cublasSetMathMode(cublasHandle_t handle, cublasMath_t mode) {
    handle->mode = mode;
    return CUBLAS_STATUS_SUCCESS;
}

EXPORT cublasStatus_t cublasSetWorkspace_v2(cublasHandle_t, void *at, size_t bytes) {
    return standin_is_device_memory(at, bytes) ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_INVALID_VALUE;
}

struct Operand {
    const void *at;
    cudaDataType type;
    int rows, columns, leading;
    long long stride;
    bool transposed;

    double get(int row, int column, int batch) const {
        const long long i = batch * stride + (transposed ? (long long)row * leading + column : (long long)column * leading + row);
        switch (type) {
        case CUDA_R_32F: return static_cast<const float *>(at)[i];
        case CUDA_R_64F: return static_cast<const double *>(at)[i];
        case CUDA_R_16BF: return static_cast<const Bf16 *>(at)[i];
        default: return static_cast<const F16 *>(at)[i];
        }
    }

    size_t bytes_of_element() const { return type == CUDA_R_64F ? 8 : type == CUDA_R_32F ? 4 : 2; }

    bool is_valid(int batches) const {
        const int lines = transposed ? rows : columns, line = transposed ? columns : rows;
        if (leading < (line > 1 ? line : 1)) return false;
        if (lines == 0 || line == 0 || batches == 0) return true;
        const size_t last = size_t((batches - 1) * stride + (long long)(lines - 1) * leading + line);
        return standin_is_device_memory(at, last * bytes_of_element());
    }
};

// Sums as cuBLAS has them: in f32 unless the operands are f64.
template <class Sum>
static void multiply(const Operand &a, const Operand &b, const Operand &c, double alpha, double beta, int batches) {
    for (int batch = 0; batch < batches; ++batch) {
        for (int column = 0; column < c.columns; ++column) {
            for (int row = 0; row < c.rows; ++row) {
                Sum sum = 0;
                for (int k = 0; k < a.columns; ++k) sum += Sum(a.get(row, k, batch)) * Sum(b.get(k, column, batch));
                // Where beta is zero what was there is not read.
                const Sum value = Sum(alpha) * sum + (beta == 0 ? 0 : Sum(beta) * Sum(c.get(row, column, batch)));
                const long long i = batch * c.stride + (long long)column * c.leading + row;
                void *at = const_cast<void *>(c.at);
                switch (c.type) {
                case CUDA_R_32F: static_cast<float *>(at)[i] = float(value); break;
                case CUDA_R_64F: static_cast<double *>(at)[i] = double(value); break;
                case CUDA_R_16BF: static_cast<Bf16 *>(at)[i] = Bf16(float(value)); break;
                default: static_cast<F16 *>(at)[i] = F16(float(value));
                }
            }
        }
    }
}

static cublasStatus_t product(cublasHandle_t handle, const Operand &a, const Operand &b, const Operand &c, double alpha,
                              double beta, int batches) {
    if (c.rows < 0 || c.columns < 0 || a.columns < 0 || batches < 0) return CUBLAS_STATUS_INVALID_VALUE;
    if (!a.is_valid(batches) || !b.is_valid(batches) || !c.is_valid(batches)) {
        std::fprintf(stderr, "stand-in: a product %d x %d x %d of %d whose operands do not fit\n", c.rows, c.columns,
                     a.columns, batches);
        return CUBLAS_STATUS_INVALID_VALUE;
    }
    const Work work = [=] {
        if (c.type == CUDA_R_64F) {
            multiply<double>(a, b, c, alpha, beta, batches);
        } else {
            multiply<float>(a, b, c, alpha, beta, batches);
        }
        return CUDA_SUCCESS;
    };
    return standin_submit(stream_of(handle), "gemm", &work) ? CUBLAS_STATUS_EXECUTION_FAILED : CUBLAS_STATUS_SUCCESS;
}

static bool is_played(cudaDataType type) { return type == CUDA_R_32F || type == CUDA_R_64F || type == CUDA_R_16BF || type == CUDA_R_16F; }

EXPORT cublasStatus_t cublasGemmStridedBatchedEx(cublasHandle_t handle, cublasOperation_t op_a, cublasOperation_t op_b, int m,
                                                 int n, int k, const void *alpha, const void *a, cudaDataType type_a, int lda,
                                                 long long stride_a, const void *b, cudaDataType type_b, int ldb,
                                                 long long stride_b, const void *beta, void *c, cudaDataType type_c, int ldc,
                                                 long long stride_c, int batches, cublasComputeType_t compute,
                                                 cublasGemmAlgo_t) {
    if (!is_played(type_a) || type_a != type_b || type_a != type_c) return CUBLAS_STATUS_NOT_SUPPORTED;
    // Factors have the type that is computed in.
    const auto factor = [compute](const void *at) -> double {
        switch (compute) {
        case CUBLAS_COMPUTE_64F: return *static_cast<const double *>(at);
        case CUBLAS_COMPUTE_16F: return *static_cast<const F16 *>(at);
        default: return *static_cast<const float *>(at);
        }
    };
    return product(handle, {a, type_a, m, k, lda, stride_a, op_a != CUBLAS_OP_N},
                   {b, type_b, k, n, ldb, stride_b, op_b != CUBLAS_OP_N}, {c, type_c, m, n, ldc, stride_c, false},
                   factor(alpha), factor(beta), batches);
}

EXPORT cublasStatus_t cublasDgemmStridedBatched(cublasHandle_t handle, cublasOperation_t op_a, cublasOperation_t op_b, int m,
                                                int n, int k, const double *alpha, const double *a, int lda,
                                                long long stride_a, const double *b, int ldb, long long stride_b,
                                                const double *beta, double *c, int ldc, long long stride_c, int batches) {
    return product(handle, {a, CUDA_R_64F, m, k, lda, stride_a, op_a != CUBLAS_OP_N},
                   {b, CUDA_R_64F, k, n, ldb, stride_b, op_b != CUBLAS_OP_N}, {c, CUDA_R_64F, m, n, ldc, stride_c, false},
                   *alpha, *beta, batches);
}

EXPORT cublasStatus_t cublasSgemmStridedBatched(cublasHandle_t handle, cublasOperation_t op_a, cublasOperation_t op_b, int m,
                                                int n, int k, const float *alpha, const float *a, int lda, long long stride_a,
                                                const float *b, int ldb, long long stride_b, const float *beta, float *c,
                                                int ldc, long long stride_c, int batches) {
    return product(handle, {a, CUDA_R_32F, m, k, lda, stride_a, op_a != CUBLAS_OP_N},
                   {b, CUDA_R_32F, k, n, ldb, stride_b, op_b != CUBLAS_OP_N}, {c, CUDA_R_32F, m, n, ldc, stride_c, false},
                   *alpha, *beta, batches);
}
