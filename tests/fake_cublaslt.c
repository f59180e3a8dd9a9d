/* tests/fake_cublaslt.c - see fake_cublaslt.h. SPDX-License-Identifier: Apache-2.0 */
#include "tests/fake_cublaslt.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "engine/elt.h"

struct fake_lt fake_lt;
static void *volatile left; /* the newest handle: reachable, should it never be destroyed */

struct desc {
    int32_t trans_a, trans_b;
    const float *scale_a, *scale_b;
};

struct layout { /* column-major */
    cudaDataType type;
    uint64_t rows, cols;
    int64_t ld;
};

/* Objects of the library are pointers to something of its own. */
static void *object(size_t bytes)
{
    fake_lt.live++;
    return mem_zalloc(1, bytes);
}

static cublasStatus_t gone(void *p)
{
    fake_lt.live--;
    free(p);
    return CUBLAS_STATUS_SUCCESS;
}

static bool fails(void)
{
    return ++fake_lt.calls == fake_lt.fail_at;
}

void fake_lt_reset(void)
{
    fake_lt = (struct fake_lt){ .n_algo = 4 };
    for (int i = 0; i < FAKE_LT_ALGOS; i++) fake_lt.cost_ns[i] = 1000;
}

static cublasStatus_t create(cublasLtHandle_t *out)
{
    if (fails()) return CUBLAS_STATUS_NOT_INITIALIZED;
    *out = left = object(1);
    return CUBLAS_STATUS_SUCCESS;
}

static cublasStatus_t destroy(cublasLtHandle_t h)
{
    return gone(h);
}

static cublasStatus_t desc_create(cublasLtMatmulDesc_t *out, cublasComputeType_t compute,
                                  cudaDataType_t scale)
{
    if (fails()) return CUBLAS_STATUS_ALLOC_FAILED;
    if (compute != CUBLAS_COMPUTE_32F || scale != CUDA_R_32F) return CUBLAS_STATUS_INVALID_VALUE;
    *out = object(sizeof(struct desc));
    return CUBLAS_STATUS_SUCCESS;
}

static cublasStatus_t desc_destroy(cublasLtMatmulDesc_t d)
{
    return gone(d);
}

static cublasStatus_t desc_set(cublasLtMatmulDesc_t p, cublasLtMatmulDescAttributes_t what,
                               const void *value, size_t n)
{
    struct desc *d = (void *)p;
    void *to = what == CUBLASLT_MATMUL_DESC_TRANSA            ? (void *)&d->trans_a
               : what == CUBLASLT_MATMUL_DESC_TRANSB          ? (void *)&d->trans_b
               : what == CUBLASLT_MATMUL_DESC_A_SCALE_POINTER ? (void *)&d->scale_a
               : what == CUBLASLT_MATMUL_DESC_B_SCALE_POINTER ? (void *)&d->scale_b
                                                              : NULL;
    bool pointer = what == CUBLASLT_MATMUL_DESC_A_SCALE_POINTER ||
                   what == CUBLASLT_MATMUL_DESC_B_SCALE_POINTER;
    if (fails() || !to || n != (pointer ? sizeof(void *) : sizeof(int32_t)))
        return CUBLAS_STATUS_INVALID_VALUE;
    memcpy(to, value, n);
    return CUBLAS_STATUS_SUCCESS;
}

static cublasStatus_t layout_create(cublasLtMatrixLayout_t *out, cudaDataType type, uint64_t rows,
                                    uint64_t cols, int64_t ld)
{
    if (fails()) return CUBLAS_STATUS_ALLOC_FAILED;
    if (ld < (int64_t)rows) return CUBLAS_STATUS_INVALID_VALUE;
    struct layout *l = object(sizeof *l);
    *l = (struct layout){ type, rows, cols, ld };
    *out = (void *)l;
    return CUBLAS_STATUS_SUCCESS;
}

static cublasStatus_t layout_destroy(cublasLtMatrixLayout_t l)
{
    return gone(l);
}

static cublasStatus_t pref_create(cublasLtMatmulPreference_t *out)
{
    if (fails()) return CUBLAS_STATUS_ALLOC_FAILED;
    *out = object(1);
    return CUBLAS_STATUS_SUCCESS;
}

static cublasStatus_t pref_destroy(cublasLtMatmulPreference_t p)
{
    return gone(p);
}

static cublasStatus_t pref_set(cublasLtMatmulPreference_t p,
                               cublasLtMatmulPreferenceAttributes_t what, const void *value,
                               size_t n)
{
    (void)p;
    if (fails()) return CUBLAS_STATUS_INVALID_VALUE;
    if (what == CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES)
        return n == sizeof(uint64_t) ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_INVALID_VALUE;
    if (n != sizeof(uint32_t)) return CUBLAS_STATUS_INVALID_VALUE;
    if (what == CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES) memcpy(&fake_lt.align, value, n);
    return CUBLAS_STATUS_SUCCESS;
}

static cublasStatus_t heuristic(cublasLtHandle_t h, cublasLtMatmulDesc_t d,
                                cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t y,
                                cublasLtMatmulPreference_t p, int want,
                                cublasLtMatmulHeuristicResult_t *out, int *n)
{
    (void)h, (void)d, (void)a, (void)b, (void)c, (void)y, (void)p;
    fake_lt.asked++;
    *n = 0;
    if (fails()) return CUBLAS_STATUS_INTERNAL_ERROR;
    if (fake_lt.n_algo == 0) return CUBLAS_STATUS_NOT_SUPPORTED;
    for (int i = 0; i < fake_lt.n_algo && i < want; i++) {
        out[i] = (cublasLtMatmulHeuristicResult_t){ .state = CUBLAS_STATUS_SUCCESS };
        out[i].algo.data[0] = (uint64_t)i;
        (*n)++;
    }
    return CUBLAS_STATUS_SUCCESS;
}

static cublasStatus_t algo_check(cublasLtHandle_t h, cublasLtMatmulDesc_t d,
                                 cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                 cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t y,
                                 const cublasLtMatmulAlgo_t *algo,
                                 cublasLtMatmulHeuristicResult_t *out)
{
    (void)h, (void)d, (void)a, (void)b, (void)c, (void)y;
    int i = (int)algo->data[0];
    fake_lt.checked++;
    if (fails() || fake_lt.unfit[i]) return CUBLAS_STATUS_NOT_SUPPORTED;
    *out = (cublasLtMatmulHeuristicResult_t){ .state = CUBLAS_STATUS_SUCCESS,
                                              .workspaceSize = fake_lt.work_bytes[i] };
    out->algo = *algo;
    return CUBLAS_STATUS_SUCCESS;
}

/* E4M3: 1 sign, 4 exponent (bias 7), 3 fraction bits; no infinities, 0x7f is NAN. */
static double from_e4m3(uint8_t b)
{
    int exponent = b >> 3 & 15, fraction = b & 7;
    double v = exponent ? ldexp(8 + fraction, exponent - 10) : ldexp(fraction, -9);
    if ((b & 0x7f) == 0x7f) v = NAN;
    return b & 0x80 ? -v : v;
}

static double value(const struct layout *l, const void *p, uint64_t row, uint64_t col)
{
    size_t i = (size_t)((int64_t)col * l->ld + (int64_t)row);
    switch (l->type) {
    case CUDA_R_16BF: return elt_get(ELT_BF16, p, i);
    case CUDA_R_16F: return elt_get(ELT_F16, p, i);
    case CUDA_R_8F_E4M3: return from_e4m3(((const uint8_t *)p)[i]);
    default: return ((const float *)p)[i];
    }
}

/* D = scale_a scale_b op(A) op(B), column-major. */
static cublasStatus_t compute(const struct desc *d, const struct layout *la, const void *a,
                              const struct layout *lb, const void *b, const struct layout *ly,
                              float *y)
{
    bool ta = d->trans_a == CUBLAS_OP_T, tb = d->trans_b == CUBLAS_OP_T;
    uint64_t m = ta ? la->cols : la->rows, k = ta ? la->rows : la->cols;
    uint64_t n = tb ? lb->rows : lb->cols;
    if (m != ly->rows || n != ly->cols || k != (tb ? lb->cols : lb->rows) || la->type != lb->type ||
        ly->type != CUDA_R_32F)
        return CUBLAS_STATUS_INVALID_VALUE;
    double scale = (d->scale_a ? *d->scale_a : 1.0) * (d->scale_b ? *d->scale_b : 1.0);
    for (uint64_t j = 0; j < n; j++)
        for (uint64_t i = 0; i < m; i++) {
            double sum = 0;
            for (uint64_t r = 0; r < k; r++)
                sum += (ta ? value(la, a, r, i) : value(la, a, i, r)) *
                       (tb ? value(lb, b, j, r) : value(lb, b, r, j));
            y[(int64_t)j * ly->ld + (int64_t)i] = (float)(scale * sum);
        }
    return CUBLAS_STATUS_SUCCESS;
}

static cublasStatus_t matmul(cublasLtHandle_t h, cublasLtMatmulDesc_t d, const void *alpha,
                             const void *a, cublasLtMatrixLayout_t la, const void *b,
                             cublasLtMatrixLayout_t lb, const void *beta, const void *c,
                             cublasLtMatrixLayout_t lc, void *y, cublasLtMatrixLayout_t ly,
                             const cublasLtMatmulAlgo_t *algo, void *work, size_t work_bytes,
                             cudaStream_t stream)
{
    (void)h, (void)c, (void)lc, (void)work_bytes, (void)stream;
    int i = (int)algo->data[0];
    float one, zero;
    memcpy(&one, alpha, sizeof one);
    memcpy(&zero, beta, sizeof zero);
    if (fails() || fake_lt.refuses[i] || !(one >= 1 && one <= 1) || zero > 0 || zero < 0 || !work)
        return CUBLAS_STATUS_NOT_SUPPORTED;
    if (fake_lt.recording) {
        if (fake_lt.n_recorded++ == 0) fake_lt.first_w = a;
        fake_lt.last_w = a;
        fake_lt.recorded_ns += fake_lt.cost_ns[i];
        return CUBLAS_STATUS_SUCCESS;
    }
    fake_lt.issued[i]++;
    fake_lt.now_ns += fake_lt.cost_ns[i];
    return compute((const void *)d, (const void *)la, a, (const void *)lb, b, (const void *)ly, y);
}

static const char *words(cublasStatus_t rc)
{
    return rc == CUBLAS_STATUS_NOT_SUPPORTED ? "CUBLAS_STATUS_NOT_SUPPORTED"
                                             : "CUBLAS_STATUS_OTHER";
}

const struct backend_cuda_lt *fake_lt_table(void)
{
    static const struct backend_cuda_lt table = { .Create = create,
                                                  .Destroy = destroy,
                                                  .MatmulDescCreate = desc_create,
                                                  .MatmulDescDestroy = desc_destroy,
                                                  .MatmulDescSetAttribute = desc_set,
                                                  .MatrixLayoutCreate = layout_create,
                                                  .MatrixLayoutDestroy = layout_destroy,
                                                  .MatmulPreferenceCreate = pref_create,
                                                  .MatmulPreferenceDestroy = pref_destroy,
                                                  .MatmulPreferenceSetAttribute = pref_set,
                                                  .MatmulAlgoGetHeuristic = heuristic,
                                                  .MatmulAlgoCheck = algo_check,
                                                  .Matmul = matmul,
                                                  .GetStatusString = words };
    return &table;
}
