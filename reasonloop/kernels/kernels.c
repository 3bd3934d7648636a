// Products of float32 matrices on a CPU, and with them a decoding step of a Llama-like model: one token in each of several
// rows, one call for all layers.
//
// The right factor of a product lies in panels of 2 x W output features, W the floats of a vector register: [panel][in][2 W],
// so that it is read in order. Each output is summed over the inputs in their order, whatever the number of rows or threads:
// a row's numbers don't depend on the rows beside it. kernels.py builds this file.

#include <math.h>
#include <omp.h>
#include <stdint.h>
#include <string.h>

#if defined(__AVX512F__)
#define W 16
#define TALLEST 12 // rows of a tile: 24 sums, 2 weights and a factor in 32 registers
#else
#ifdef __AVX__
#define W 8
#else
#define W 4
#endif
#define TALLEST 6 // 16 registers
#endif
#define CHUNK 96 // rows that are multiplied with a panel before the next panel's turn: they stay in the cache
#define PANEL (2 * W)
#define LINE 16  // floats of a cache line
#define DEEP 1536 // inputs
#define CROWDED 512 // floats: rows so far apart, or a multiple of it, share the same few places of a cache

typedef float vec __attribute__((vector_size(4 * W), aligned(4), may_alias));

typedef struct {
    const float *before_attention, *qkv, *qkv_bias, *of_query, *of_key, *output, *output_bias;
    const float *before_mlp, *gate_up, *gate_up_bias, *down, *down_bias;
    float *keys, *values; // [slots][kv_heads][dim][length], [slots][kv_heads][length][dim]
} Layer;

typedef struct {
    int64_t layers, hidden, heads, kv_heads, dim, inner, length, threads;
    float epsilon, head_epsilon, scale;
    const float *embedding, *cos, *sin, *final; // cos and sin: [length][dim]
    const Layer *layer;
    float *x, *qkv, *seen, *gated; // work space of so many rows: hidden, heads + 2 kv_heads, heads, inner
    float *own;                    // of each thread: rows x hidden, and length
    int64_t own_size;
} Model;

enum { STORE, ADD, GATED };

uint64_t source_id(void) { return SOURCE_ID; } // given by the builder: a digest of this file
int64_t panel_width(void) { return PANEL; }
int64_t own_floats(void) { return (int64_t)CHUNK * DEEP; }

// weight [out][in] -> panels; `up`, where given: a panel holds W features of each
void lay_out(const float *weight, const float *up, int64_t out, int64_t in, float *panels, int64_t threads) {
    int64_t width = up ? W : PANEL, count = (out + width - 1) / width;
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t p = 0; p < count; p++) {
        float *to = panels + p * in * PANEL;
        for (int64_t start = 0; start < in; start += LINE) {
            int64_t end = start + LINE < in ? start + LINE : in;
            for (int64_t c = 0; c < PANEL; c++) {
                int64_t feature = p * width + c % width;
                const float *from = (up && c >= W ? up : weight) + feature * in;
                for (int64_t k = start; k < end; k++) to[k * PANEL + c] = feature < out ? from[k] : 0.0f;
            }
        }
    }
}

// e^x for x <= 0 or moderate: 2^n times a polynomial on [-ln 2 / 2, ln 2 / 2], error below 2 units in the last place
static inline float exponential(float x) {
    x = x > 88.0f ? 88.0f : x;
    float low = x < -87.0f ? -87.0f : x;
    float n = rintf(low * 1.44269504f);
    float r = (low - n * 0.693359375f) + n * 2.12194440e-4f;
    float y = 1.9875691500e-4f;
    y = y * r + 1.3981999507e-3f;
    y = y * r + 8.3334519073e-3f;
    y = y * r + 4.1665795894e-2f;
    y = y * r + 1.6666665459e-1f;
    y = y * r + 5.0000001201e-1f;
    y = y * r * r + r + 1.0f;
    union { int32_t i; float f; } power = {((int32_t)n + 127) << 23};
    return x < -87.0f ? 0.0f : y * power.f;
}

static inline float silu(float x) { return x / (1.0f + exponential(-x)); }

// Sums of a tile: of some rows of the left factor, [rows][in] or with ACROSS [in][rows], and a panel
#define TILE(NAME, ROWS, LEFT)                                                                                           \
    static void NAME##_##ROWS(const float *a, int64_t stride, const float *b, int64_t in, const float *next, vec *out) { \
        vec sum[ROWS][2];                                                                                                \
        _Pragma("GCC unroll 16") for (int i = 0; i < ROWS; i++) sum[i][0] = sum[i][1] = (vec){0};                        \
        for (int64_t k = 0; k < in; k++) {                                                                               \
            vec b0 = *(const vec *)(b + k * PANEL), b1 = *(const vec *)(b + k * PANEL + W);                              \
            if (next) __builtin_prefetch(next + k * LINE);                                                               \
            _Pragma("GCC unroll 16") for (int i = 0; i < ROWS; i++) {                                                    \
                vec factor = LEFT - (vec){0};                                                                            \
                sum[i][0] += factor * b0;                                                                                \
                sum[i][1] += factor * b1;                                                                                \
            }                                                                                                            \
        }                                                                                                                \
        _Pragma("GCC unroll 16") for (int i = 0; i < ROWS; i++) out[2 * i] = sum[i][0], out[2 * i + 1] = sum[i][1];      \
    }
#define ALONG(ROWS) TILE(along, ROWS, a[i * stride + k])
#define ACROSS(ROWS) TILE(across, ROWS, a[k * stride + i])
#if TALLEST == 12
#define EACH(DO) DO(1) DO(2) DO(3) DO(4) DO(5) DO(6) DO(7) DO(8) DO(9) DO(10) DO(11) DO(12)
#else
#define EACH(DO) DO(1) DO(2) DO(3) DO(4) DO(5) DO(6)
#endif
EACH(ALONG)
EACH(ACROSS)
typedef void Tile(const float *, int64_t, const float *, int64_t, const float *, vec *);
#define NAME_ALONG(ROWS) along_##ROWS,
#define NAME_ACROSS(ROWS) across_##ROWS,
static Tile *const along[] = {0, EACH(NAME_ALONG)};
static Tile *const across[] = {0, EACH(NAME_ACROSS)};

// A tile's row of sums -> c: `columns` of them, stored, added, or silu(gate) * up
static inline void put(vec s0, vec s1, float *c, int64_t columns, int kind) {
    if (kind == GATED) {
        float gate[W], up[W];
        memcpy(gate, &s0, sizeof gate);
        memcpy(up, &s1, sizeof up);
        for (int j = 0; j < W; j++) gate[j] = silu(gate[j]) * up[j];
        memcpy(c, gate, columns * sizeof(float));
    } else if (columns == PANEL) {
        if (kind == ADD) s0 += *(vec *)c, s1 += *(vec *)(c + W);
        *(vec *)c = s0, *(vec *)(c + W) = s1;
    } else {
        float both[PANEL];
        memcpy(both, &s0, sizeof s0);
        memcpy(both + W, &s1, sizeof s1);
        for (int64_t j = 0; j < columns; j++) c[j] = kind == ADD ? c[j] + both[j] : both[j];
    }
}

// a [rows][in] times panels -> c [rows][out], stored, added, or silu(gate) * up. Within a parallel region, which all threads
// leave together.
static void product(const float *a, int64_t rows, int64_t in, const float *panels, const float *bias, float *c,
                    int64_t out, int kind) {
    int64_t width = kind == GATED ? W : PANEL, count = (out + width - 1) / width, chunks = (rows + CHUNK - 1) / CHUNK;
#pragma omp for schedule(dynamic, 1)
    for (int64_t task = 0; task < chunks * count; task++) {
        int64_t p = task % count, start = task / count * rows / chunks;
        int64_t tall = (task / count + 1) * rows / chunks - start, blocks = (tall + TALLEST - 1) / TALLEST;
        const float *panel = panels + p * in * PANEL;
        vec sums[2 * TALLEST], bias_0 = {0}, bias_1 = {0};
        if (bias) {
            bias_0 = *(const vec *)(bias + p * PANEL);
            bias_1 = *(const vec *)(bias + p * PANEL + W);
        }
        int64_t columns = out - p * width < width ? out - p * width : width;
        for (int64_t block = 0; block < blocks; block++) {
            int64_t first = start + block * tall / blocks, high = start + (block + 1) * tall / blocks - first;
            // while a panel is used for the second time and the third, the next one comes into the cache
            int ahead = p + 1 < count && block > 0 && block <= PANEL / LINE;
            const float *next = ahead ? panel + in * PANEL + (block - 1) * in * LINE : 0;
            along[high](a + first * in, in, panel, in, next, sums);
            for (int64_t i = 0; i < high; i++)
                put(sums[2 * i] + bias_0, sums[2 * i + 1] + bias_1, c + (first + i) * out + p * width, columns, kind);
        }
    }
}

void multiply(const float *a, int64_t rows, int64_t in, const float *panels, const float *bias, float *c, int64_t out,
              int64_t gated, int64_t threads) {
#pragma omp parallel num_threads(threads)
    product(a, rows, in, panels, bias, c, out, gated ? GATED : STORE);
}

// right [in][out] -> panels
void lay_rows(const float *right, int64_t in, int64_t out, float *panels, int64_t threads) {
    int64_t count = (out + PANEL - 1) / PANEL;
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t p = 0; p < count; p++) {
        int64_t columns = out - p * PANEL < PANEL ? out - p * PANEL : PANEL;
        for (int64_t k = 0; k < in; k++) {
            float *to = panels + (p * in + k) * PANEL;
            memcpy(to, right + k * out + p * PANEL, columns * sizeof(float));
            if (columns < PANEL) memset(to + columns, 0, (PANEL - columns) * sizeof(float));
        }
    }
}

// Part of a left factor, its rows `apart` and its inputs `along` floats from one another -> [block][in][TALLEST]
static void gather(const float *a, int64_t apart, int64_t along, int64_t tall, int64_t deep, float *to) {
    int64_t blocks = (tall + TALLEST - 1) / TALLEST;
    for (int64_t block = 0; block < blocks; block++, to += TALLEST * deep) {
        int64_t first = block * tall / blocks, high = (block + 1) * tall / blocks - first;
        const float *from = a + first * apart;
        if (apart == 1 && high == TALLEST)
            for (int64_t k = 0; k < deep; k++) memcpy(to + k * TALLEST, from + k * along, TALLEST * sizeof(float));
        else
            for (int64_t start = 0; start < deep; start += LINE)
                for (int64_t i = 0; i < high; i++)
                    for (int64_t k = start; k < start + LINE && k < deep; k++)
                        to[k * TALLEST + i] = from[i * apart + k * along];
    }
}

// a [rows][in], or with `turned` [in][rows], times panels -> c [rows][out], with `add` on top of what is there. In blocks of
// DEEP inputs, so that what a tile reads stays in the caches; every thread has the same part of c in all of them. The left
// factor is gathered where its lines would drive one another from the cache. `own`: CHUNK x DEEP floats for each thread.
void matmul(const float *a, int64_t turned, int64_t rows, int64_t in, const float *panels, float *c, int64_t out,
            int64_t add, float *own, int64_t threads) {
    int64_t count = (out + PANEL - 1) / PANEL, chunks = (rows + CHUNK - 1) / CHUNK;
    int gathered = (turned ? rows : in) % CROWDED == 0;
#pragma omp parallel num_threads(threads)
    for (int64_t start = 0; start < in; start += DEEP) {
        int64_t deep = in - start < DEEP ? in - start : DEEP, there = -1;
        float *left = own + omp_get_thread_num() * (int64_t)CHUNK * DEEP;
#pragma omp for schedule(static) nowait
        for (int64_t task = 0; task < chunks * count; task++) {
            int64_t p = task % count, chunk = task / count, top = chunk * rows / chunks;
            int64_t tall = (chunk + 1) * rows / chunks - top, blocks = (tall + TALLEST - 1) / TALLEST;
            int64_t columns = out - p * PANEL < PANEL ? out - p * PANEL : PANEL;
            const float *panel = panels + (p * in + start) * PANEL;
            vec sums[2 * TALLEST];
            if (gathered && there != chunk) {
                if (turned)
                    gather(a + start * rows + top, 1, rows, tall, deep, left);
                else
                    gather(a + top * in + start, in, 1, tall, deep, left);
                there = chunk;
            }
            for (int64_t block = 0; block < blocks; block++) {
                int64_t first = block * tall / blocks, high = (block + 1) * tall / blocks - first;
                if (gathered)
                    across[high](left + block * TALLEST * deep, TALLEST, panel, deep, 0, sums);
                else if (turned)
                    across[high](a + start * rows + top + first, rows, panel, deep, 0, sums);
                else
                    along[high](a + (top + first) * in + start, in, panel, deep, 0, sums);
                float *to = c + (top + first) * out + p * PANEL;
                for (int64_t i = 0; i < high; i++)
                    put(sums[2 * i], sums[2 * i + 1], to + i * out, columns, start || add ? ADD : STORE);
            }
        }
    }
}

static void norm(const float *x, const float *weight, int64_t size, float epsilon, float *out) {
    float squares = 0.0f;
#pragma omp simd reduction(+ : squares)
    for (int64_t i = 0; i < size; i++) squares += x[i] * x[i];
    float scale = 1.0f / sqrtf(squares / size + epsilon);
#pragma omp simd
    for (int64_t i = 0; i < size; i++) out[i] = x[i] * scale * weight[i];
}

// x [dim] turned by its position's angles, in place
static void rotate(float *x, const float *cos, const float *sin, int64_t half, float scale) {
#pragma omp simd
    for (int64_t i = 0; i < half; i++) {
        float a = x[i], b = x[i + half];
        x[i] = (a * cos[i] - b * sin[i]) * scale;
        x[i + half] = (b * cos[i + half] + a * sin[i + half]) * scale;
    }
}

// One row and key head: its queries, key and value from qkv, the key and value into the cache, the answer into `seen`
static void attend(const Model *m, const Layer *layer, int64_t row, int64_t group, int64_t position, float *weights) {
    int64_t dim = m->dim, share = m->heads / m->kv_heads, reach = position + 1;
    float *fused = m->qkv + row * (m->heads + 2 * m->kv_heads) * dim;
    float *queries = fused + group * share * dim, *key = fused + (m->heads + group) * dim;
    const float *value = fused + (m->heads + m->kv_heads + group) * dim;
    const float *cos = m->cos + position * dim, *sin = m->sin + position * dim;
    int64_t place = (row * m->kv_heads + group) * m->length;
    float *keys = layer->keys + place * dim, *values = layer->values + place * dim;
    if (layer->of_key) norm(key, layer->of_key, dim, m->head_epsilon, key);
    rotate(key, cos, sin, dim / 2, 1.0f);
    for (int64_t d = 0; d < dim; d++) keys[d * m->length + position] = key[d];
    memcpy(values + position * dim, value, dim * sizeof(float));
    for (int64_t s = 0; s < share; s++) {
        float *query = queries + s * dim, *w = weights;
        if (layer->of_query) norm(query, layer->of_query, dim, m->head_epsilon, query);
        rotate(query, cos, sin, dim / 2, m->scale);
        // scores of 4 vectors of positions at a time; `length` is whole vectors, so that none reaches beyond its row
        int64_t t = 0;
        for (; t + 3 * W < reach; t += 4 * W) {
            vec s0 = {0}, s1 = {0}, s2 = {0}, s3 = {0};
            for (int64_t d = 0; d < dim; d++) {
                const float *k = keys + d * m->length + t;
                s0 += query[d] * *(const vec *)k, s1 += query[d] * *(const vec *)(k + W);
                s2 += query[d] * *(const vec *)(k + 2 * W), s3 += query[d] * *(const vec *)(k + 3 * W);
            }
            *(vec *)(w + t) = s0, *(vec *)(w + t + W) = s1, *(vec *)(w + t + 2 * W) = s2, *(vec *)(w + t + 3 * W) = s3;
        }
        for (; t < reach; t += W) {
            vec even = {0}, odd = {0};
            for (int64_t d = 0; d < dim; d += 2) {
                even += query[d] * *(const vec *)(keys + d * m->length + t);
                odd += query[d + 1] * *(const vec *)(keys + (d + 1) * m->length + t);
            }
            *(vec *)(w + t) = even + odd;
        }
        float top = w[0], total = 0.0f;
#pragma omp simd reduction(max : top)
        for (int64_t i = 0; i < reach; i++) top = w[i] > top ? w[i] : top;
#pragma omp simd reduction(+ : total)
        for (int64_t i = 0; i < reach; i++) total += w[i] = exponential(w[i] - top);
        float *out = m->seen + (row * m->heads + group * share + s) * dim, by = 1.0f / total;
        int64_t d = 0;
        for (; d + W <= dim; d += W) {
            vec s0 = {0}, s1 = {0}, s2 = {0}, s3 = {0};
            const float *v = values + d;
            for (t = 0; t + 3 < reach; t += 4) {
                s0 += w[t] * *(const vec *)(v + t * dim), s1 += w[t + 1] * *(const vec *)(v + (t + 1) * dim);
                s2 += w[t + 2] * *(const vec *)(v + (t + 2) * dim), s3 += w[t + 3] * *(const vec *)(v + (t + 3) * dim);
            }
            for (; t < reach; t++) s0 += w[t] * *(const vec *)(v + t * dim);
            *(vec *)(out + d) = ((s0 + s1) + (s2 + s3)) * by;
        }
        for (; d < dim; d++) {
            float sum = 0.0f;
            for (t = 0; t < reach; t++) sum += w[t] * values[t * dim + d];
            out[d] = sum * by;
        }
    }
}

// tokens and positions [rows] -> x: final hidden states [rows][hidden]
void step(const Model *m, int64_t rows, const int64_t *tokens, const int64_t *positions) {
    int64_t hidden = m->hidden, attended = m->heads * m->dim, fused = attended + 2 * m->kv_heads * m->dim;
#pragma omp parallel num_threads(m->threads)
    {
        float *normed = m->own + omp_get_thread_num() * m->own_size, *weights = normed + rows * hidden;
#pragma omp for schedule(static)
        for (int64_t r = 0; r < rows; r++)
            memcpy(m->x + r * hidden, m->embedding + tokens[r] * hidden, hidden * sizeof(float));
        for (int64_t l = 0; l < m->layers; l++) {
            const Layer *layer = m->layer + l;
            for (int64_t r = 0; r < rows; r++) // every thread all rows, for its own use: no waiting
                norm(m->x + r * hidden, layer->before_attention, hidden, m->epsilon, normed + r * hidden);
            product(normed, rows, hidden, layer->qkv, layer->qkv_bias, m->qkv, fused, STORE);
#pragma omp for schedule(dynamic, 1)
            for (int64_t task = 0; task < rows * m->kv_heads; task++) {
                int64_t row = task / m->kv_heads;
                attend(m, layer, row, task % m->kv_heads, positions[row], weights);
            }
            product(m->seen, rows, attended, layer->output, layer->output_bias, m->x, hidden, ADD);
            for (int64_t r = 0; r < rows; r++)
                norm(m->x + r * hidden, layer->before_mlp, hidden, m->epsilon, normed + r * hidden);
            product(normed, rows, hidden, layer->gate_up, layer->gate_up_bias, m->gated, m->inner, GATED);
            product(m->gated, rows, m->inner, layer->down, layer->down_bias, m->x, hidden, ADD);
        }
#pragma omp for schedule(static)
        for (int64_t r = 0; r < rows; r++) norm(m->x + r * hidden, m->final, hidden, m->epsilon, m->x + r * hidden);
    }
}

// Attention over a packed stream (policy/attention.py): a segment's tokens look at the segments before it, and causally at
// themselves. Stream tensors are [tokens][heads][dim].

#define BLOCK 48 // queries that are worked on together

typedef struct {
    int64_t segments, heads, kv_heads, dim, threads;
    float scale;
    const int64_t *segment; // [segments][4]: start, length, first context, contexts
    const int64_t *context; // [...][2]: start, length
    int64_t longest;        // keys of a segment, its contexts' included
    float *own;             // of each thread: attention_floats(longest, dim, whether backward)
    int64_t own_size;
} Packed;

static inline int64_t rounded(int64_t n) { return (n + PANEL - 1) / PANEL * PANEL; }

int64_t attention_floats(int64_t longest, int64_t dim, int64_t backward) {
    int64_t area = rounded(longest) * rounded(dim), block = BLOCK * rounded(longest);
    return (backward ? 5 * area + 2 * block + 2 * BLOCK * rounded(dim) : 2 * area + block) + 2 * longest;
}

// The tokens that a segment looks at, in order
static int64_t visible(const Packed *m, const int64_t *segment, int64_t *tokens) {
    int64_t n = 0;
    for (int64_t c = segment[2]; c < segment[2] + segment[3]; c++)
        for (int64_t i = 0; i < m->context[2 * c + 1]; i++) tokens[n++] = m->context[2 * c] + i;
    for (int64_t i = 0; i < segment[1]; i++) tokens[n++] = segment[0] + i;
    return n;
}

// Rows of a stream tensor -> panels of `dim` features, [panel][row][PANEL]; tokens: which rows, or from `start` on
static void rows_along(const float *x, int64_t apart, const int64_t *tokens, int64_t start, int64_t count, int64_t dim,
                       float *to) {
    for (int64_t p = 0; p * PANEL < dim; p++) {
        int64_t columns = dim - p * PANEL < PANEL ? dim - p * PANEL : PANEL;
        for (int64_t i = 0; i < count; i++, to += PANEL) {
            memcpy(to, x + (tokens ? tokens[i] : start + i) * apart + p * PANEL, columns * sizeof(float));
            if (columns < PANEL) memset(to + columns, 0, (PANEL - columns) * sizeof(float));
        }
    }
}

// The same, turned: panels of rows, [panel][feature][PANEL]
static void rows_across(const float *x, int64_t apart, const int64_t *tokens, int64_t count, int64_t dim, float *to) {
    for (int64_t p = 0; p * PANEL < count; p++, to += dim * PANEL)
        for (int64_t c = 0; c < PANEL; c++) {
            int64_t i = p * PANEL + c;
            const float *from = x + (i < count ? tokens[i] : 0) * apart;
            for (int64_t d = 0; d < dim; d++) to[d * PANEL + c] = i < count ? from[d] : 0.0f;
        }
}

// left [rows][depth], rows `stride` apart, or `turned` [depth][rows], times panels of `high` inputs, of which `depth` count
static void small(const float *left, int64_t stride, int turned, int64_t rows, int64_t depth, const float *panels,
                  int64_t high, int64_t columns, float *c, int64_t c_stride, int kind) {
    vec sums[2 * TALLEST];
    int64_t blocks = (rows + TALLEST - 1) / TALLEST;
    for (int64_t p = 0; p * PANEL < columns; p++) {
        int64_t wide = columns - p * PANEL < PANEL ? columns - p * PANEL : PANEL;
        for (int64_t block = 0; block < blocks; block++) {
            int64_t first = block * rows / blocks, tall = (block + 1) * rows / blocks - first;
            const float *panel = panels + p * high * PANEL;
            if (turned)
                across[tall](left + first, stride, panel, depth, 0, sums);
            else
                along[tall](left + first * stride, stride, panel, depth, 0, sums);
            for (int64_t i = 0; i < tall; i++)
                put(sums[2 * i], sums[2 * i + 1], c + (first + i) * c_stride + p * PANEL, wide, kind);
        }
    }
}

// query [tokens][heads][dim], key and value [tokens][kv_heads][dim] -> out as query, sums [tokens][heads]: log sum exp
void attention(const Packed *m, const float *query, const float *key, const float *value, float *out, float *sums) {
    int64_t dim = m->dim, apart = m->heads * dim, kv_apart = m->kv_heads * dim, share = m->heads / m->kv_heads;
#pragma omp parallel for num_threads(m->threads) schedule(dynamic, 1)
    for (int64_t task = 0; task < m->segments * m->kv_heads; task++) {
        const int64_t *segment = m->segment + 4 * (task / m->kv_heads);
        int64_t group = task % m->kv_heads, start = segment[0], stride = rounded(m->longest);
        float *keys = m->own + omp_get_thread_num() * m->own_size, *values = keys + stride * rounded(dim);
        float *weights = values + stride * rounded(dim);
        int64_t *tokens = (int64_t *)(weights + BLOCK * stride);
        int64_t count = visible(m, segment, tokens), before = count - segment[1];
        rows_across(key + group * dim, kv_apart, tokens, count, dim, keys);
        rows_along(value + group * dim, kv_apart, tokens, 0, count, dim, values);
        for (int64_t h = group * share; h < (group + 1) * share; h++)
            for (int64_t top = 0; top < segment[1]; top += BLOCK) {
                int64_t rows = segment[1] - top < BLOCK ? segment[1] - top : BLOCK, reach = before + top + rows;
                const float *own = query + (start + top) * apart + h * dim;
                small(own, apart, 0, rows, dim, keys, dim, reach, weights, stride, STORE);
                for (int64_t i = 0; i < rows; i++) {
                    float *w = weights + i * stride, highest = w[0], total = 0.0f;
                    int64_t seen = before + top + i + 1;
#pragma omp simd reduction(max : highest)
                    for (int64_t t = 0; t < seen; t++) highest = w[t] > highest ? w[t] : highest;
                    highest *= m->scale;
#pragma omp simd reduction(+ : total)
                    for (int64_t t = 0; t < seen; t++) total += w[t] = exponential(w[t] * m->scale - highest);
                    float by = 1.0f / total;
#pragma omp simd
                    for (int64_t t = 0; t < seen; t++) w[t] *= by;
                    memset(w + seen, 0, (reach - seen) * sizeof(float));
                    sums[(start + top + i) * m->heads + h] = highest + logf(total);
                }
                small(weights, stride, 0, rows, reach, values, count, dim, out + (start + top) * apart + h * dim, apart,
                      STORE);
            }
    }
}

// Gradients of query, key and value, the latter two zero before, from that of `out`. A key head is one thread's: what several
// segments look at gets its gradients in their order.
void attention_backward(const Packed *m, const float *query, const float *key, const float *value, const float *out,
                        const float *sums, const float *d_out, float *d_query, float *d_key, float *d_value) {
    int64_t dim = m->dim, apart = m->heads * dim, kv_apart = m->kv_heads * dim, share = m->heads / m->kv_heads;
    int64_t stride = rounded(m->longest), area = stride * rounded(dim);
#pragma omp parallel for num_threads(m->threads) schedule(dynamic, 1)
    for (int64_t group = 0; group < m->kv_heads; group++) {
        float *keys = m->own + omp_get_thread_num() * m->own_size, *keys_along = keys + area, *values = keys + 2 * area;
        float *dk = keys + 3 * area, *dv = keys + 4 * area, *weights = keys + 5 * area, *ds = weights + BLOCK * stride;
        float *queries = ds + BLOCK * stride, *pulls = queries + BLOCK * rounded(dim);
        int64_t *tokens = (int64_t *)(pulls + BLOCK * rounded(dim));
        for (int64_t s = 0; s < m->segments; s++) {
            const int64_t *segment = m->segment + 4 * s;
            int64_t start = segment[0], count = visible(m, segment, tokens), before = count - segment[1];
            rows_across(key + group * dim, kv_apart, tokens, count, dim, keys);
            rows_along(key + group * dim, kv_apart, tokens, 0, count, dim, keys_along);
            rows_across(value + group * dim, kv_apart, tokens, count, dim, values);
            memset(dk, 0, count * dim * sizeof(float));
            memset(dv, 0, count * dim * sizeof(float));
            for (int64_t h = group * share; h < (group + 1) * share; h++)
                for (int64_t top = 0; top < segment[1]; top += BLOCK) {
                    int64_t rows = segment[1] - top < BLOCK ? segment[1] - top : BLOCK, reach = before + top + rows;
                    int64_t place = (start + top) * apart + h * dim;
                    small(query + place, apart, 0, rows, dim, keys, dim, reach, weights, stride, STORE);
                    small(d_out + place, apart, 0, rows, dim, values, dim, reach, ds, stride, STORE);
                    for (int64_t i = 0; i < rows; i++) {
                        float *w = weights + i * stride, *d = ds + i * stride, delta = 0.0f;
                        const float *pull = d_out + place + i * apart, *answer = out + place + i * apart;
                        float sum = sums[(start + top + i) * m->heads + h];
                        int64_t seen = before + top + i + 1;
#pragma omp simd reduction(+ : delta)
                        for (int64_t t = 0; t < dim; t++) delta += pull[t] * answer[t];
#pragma omp simd
                        for (int64_t t = 0; t < seen; t++) {
                            w[t] = exponential(w[t] * m->scale - sum);
                            d[t] = w[t] * (d[t] - delta) * m->scale;
                        }
                        memset(w + seen, 0, (reach - seen) * sizeof(float));
                        memset(d + seen, 0, (reach - seen) * sizeof(float));
                    }
                    small(ds, stride, 0, rows, reach, keys_along, count, dim, d_query + place, apart, STORE);
                    rows_along(query + h * dim, apart, 0, start + top, rows, dim, queries);
                    rows_along(d_out + h * dim, apart, 0, start + top, rows, dim, pulls);
                    small(ds, stride, 1, reach, rows, queries, rows, dim, dk, dim, ADD);
                    small(weights, stride, 1, reach, rows, pulls, rows, dim, dv, dim, ADD);
                }
            for (int64_t t = 0; t < count; t++) {
                float *to_key = d_key + tokens[t] * kv_apart + group * dim;
                float *to_value = d_value + tokens[t] * kv_apart + group * dim;
#pragma omp simd
                for (int64_t d = 0; d < dim; d++) to_key[d] += dk[t * dim + d];
#pragma omp simd
                for (int64_t d = 0; d < dim; d++) to_value[d] += dv[t * dim + d];
            }
        }
    }
}

// Of logits [rows][vocabulary] times `by` (1 / temperature): each row's highest logit and log sum exp above it (apart: at small
// temperatures their sum has lost the latter's digits), its target's log-prob, and its entropy
void token_logprobs(const float *logits, int64_t rows, int64_t vocabulary, const int64_t *targets, float by, float *sums,
                    float *logprobs, float *entropies, int64_t threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t r = 0; r < rows; r++) {
        const float *x = logits + r * vocabulary;
        float top = x[0], total = 0.0f, weighted = 0.0f;
#pragma omp simd reduction(max : top)
        for (int64_t i = 0; i < vocabulary; i++) top = x[i] > top ? x[i] : top;
#pragma omp simd reduction(+ : total, weighted)
        for (int64_t i = 0; i < vocabulary; i++) {
            float z = (x[i] - top) * by, weight = exponential(z);
            total += weight;
            weighted += weight * (z < -100.0f ? -100.0f : z);
        }
        sums[2 * r] = top;
        sums[2 * r + 1] = logf(total);
        logprobs[r] = (x[targets[r]] - top) * by - sums[2 * r + 1];
        entropies[r] = sums[2 * r + 1] - weighted / total;
    }
}

// Logits, in place, to the gradient of sum over rows of pull times the target's log-prob, by `by` times the logits
void token_gradients(float *logits, int64_t rows, int64_t vocabulary, const int64_t *targets, float by, const float *sums,
                     const float *pulls, int64_t threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t r = 0; r < rows; r++) {
        float *x = logits + r * vocabulary, top = sums[2 * r], sum = sums[2 * r + 1], pull = pulls[r];
#pragma omp simd
        for (int64_t i = 0; i < vocabulary; i++) x[i] = -pull * exponential((x[i] - top) * by - sum);
        x[targets[r]] += pull;
    }
}
