#include "bench_shop.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/file.h"
#include "base/vectors.h"
#include "embeddings/safetensors.h"
#include "embeddings/user_model.h"

static const int64_t BASE_TIME_MS = INT64_C(1764000000000);
static const float NOISE = 1.1F;      /* length of the noise relative to the cluster's centre */
static const double SPECTRUM = -0.25; /* component d has a standard deviation of (d + 1)^SPECTRUM */
enum { N_HISTORIES = 1000, CATEGORY_COUNT = 60, CLUSTERS_PER_USER = 3 };

void bench_shop_id(size_t item, char out[BENCH_ID_BYTES])
{
    (void)snprintf(out, BENCH_ID_BYTES, "SKU%07zu", item);
}

/* Item i is in cluster i % BENCH_CLUSTERS. */
static size_t item_in_cluster(size_t n_items, size_t cluster, struct rng *rng)
{
    size_t n_in_cluster = (n_items - cluster + BENCH_CLUSTERS - 1) / BENCH_CLUSTERS;
    return cluster + BENCH_CLUSTERS * (size_t)rng_below(rng, n_in_cluster);
}

void bench_shop_history(size_t n_items, uint64_t user, int64_t now_ms,
                        struct history_event events[BENCH_HISTORY])
{
    struct rng rng;
    rng_init(&rng, 0x9e3779b97f4a7c15ULL ^ user);
    size_t n_clusters = n_items < BENCH_CLUSTERS ? n_items : BENCH_CLUSTERS;
    size_t clusters[CLUSTERS_PER_USER];
    for (size_t c = 0; c < CLUSTERS_PER_USER; c++) {
        clusters[c] = (size_t)rng_below(&rng, n_clusters);
    }
    for (size_t e = 0; e < BENCH_HISTORY; e++) {
        size_t cluster = clusters[rng_below(&rng, CLUSTERS_PER_USER)];
        events[e].row = (uint32_t)item_in_cluster(n_items, cluster, &rng);
        events[e].type = EVENT_VIEW;
        events[e].time_ms = now_ms - (int64_t)e * 3600 * 1000;
    }
}

static void normal_vector(struct rng *rng, size_t dim, float length, float *out)
{
    for (size_t d = 0; d < dim; d++) {
        out[d] = (float)(rng_normal(rng) * pow((double)d + 1.0, SPECTRUM));
    }
    float norm = vector_norm(out, dim);
    for (size_t d = 0; d < dim; d++) {
        out[d] *= length / norm;
    }
}

static enum status write_vectors(const char *path, size_t n_items, size_t dim, uint64_t seed,
                                 struct error *err)
{
    float *vectors = mem_alloc_array(n_items * dim, sizeof(float));
    float *centres = mem_alloc_array(BENCH_CLUSTERS * dim, sizeof(float));
    float *counts = mem_alloc_array(n_items, sizeof(float));
    float *noise = mem_alloc_array(dim, sizeof(float));
    enum status status = STATUS_NOMEM;
    if (vectors != NULL && centres != NULL && counts != NULL && noise != NULL) {
        struct rng rng;
        rng_init(&rng, seed);
        for (size_t c = 0; c < BENCH_CLUSTERS; c++) {
            normal_vector(&rng, dim, 1.0F, centres + c * dim);
        }
        for (size_t i = 0; i < n_items; i++) {
            float *vector = vectors + i * dim;
            normal_vector(&rng, dim, NOISE, noise);
            for (size_t d = 0; d < dim; d++) {
                vector[d] = centres[(i % BENCH_CLUSTERS) * dim + d] + noise[d];
            }
            float norm = vector_norm(vector, dim);
            for (size_t d = 0; d < dim; d++) {
                vector[d] /= norm;
            }
            counts[i] = (float)(1e6 / (1.0 + (double)i));
        }
        const struct tensor_to_write tensors[] = {
            {"item_vectors", TENSOR_F32, 2, {n_items, dim}, vectors},
            {"item_counts", TENSOR_F32, 1, {n_items}, counts},
        };
        status = safetensors_write(path, tensors, 2, NULL, 0, err);
    }
    mem_free(noise);
    mem_free(counts);
    mem_free(centres);
    mem_free(vectors);
    return status;
}

static void write_items(FILE *items, FILE *ids, size_t n_items)
{
    (void)fprintf(items,
                  "id,title,category,brand,price,currency,stock,image_url,url,colour,weight\n");
    for (size_t i = 0; i < n_items; i++) {
        char id[BENCH_ID_BYTES];
        bench_shop_id(i, id);
        size_t cluster = i % BENCH_CLUSTERS;
        (void)fprintf(items,
                      "%s,Bench item number %zu of cluster %zu,Department %zu > Category %zu,Brand "
                      "%zu,%.2f,GBP,%zu,https://shop.example/img/%s.webp,https://shop.example/p/%s,"
                      "colour %zu,%zu\n",
                      id, i, cluster, cluster % 10, cluster % CATEGORY_COUNT, cluster % 200,
                      1.0 + (double)(i % 9973) / 100.0, i % 20, id, id, i % 12, i % 5000);
        (void)fprintf(ids, "%s\n", id);
    }
}

static void write_histories(FILE *out, size_t n_items)
{
    for (uint64_t user = 0; user < N_HISTORIES; user++) {
        struct history_event events[BENCH_HISTORY];
        bench_shop_history(n_items, user + (UINT64_C(1) << 40), BASE_TIME_MS, events);
        (void)fprintf(out, "{\"now_ms\": %lld, \"history\": [", (long long)BASE_TIME_MS);
        for (size_t e = 0; e < BENCH_HISTORY; e++) {
            char id[BENCH_ID_BYTES];
            bench_shop_id(events[e].row, id);
            (void)fprintf(out, "%s[\"%s\", \"view\", %lld]", e > 0 ? ", " : "", id,
                          (long long)events[e].time_ms);
        }
        (void)fprintf(out, "]}\n");
    }
}

static FILE *create(const char *dir, const char *name)
{
    char path[PATH_BYTES_MAX];
    return path_join(path, dir, name, NULL) == STATUS_OK ? fopen(path, "we") : NULL;
}

static enum status close_all(FILE *const *files, size_t n, struct error *err)
{
    enum status status = STATUS_OK;
    for (size_t i = 0; i < n; i++) {
        if (files[i] == NULL || ferror(files[i]) || fclose(files[i]) != 0) {
            status = error_set_errno(err, "writing the bench's shop");
        }
    }
    return status;
}

enum status bench_shop_write(const char *dir, size_t n_items, size_t dim, uint64_t seed,
                             struct error *err)
{
    char model[PATH_BYTES_MAX];
    char path[PATH_BYTES_MAX];
    struct decay_settings settings;
    enum status status = path_join(model, dir, "model", err);
    if (status == STATUS_OK) {
        status = dir_make(model, err);
    }
    if (status == STATUS_OK) {
        status = path_join(path, model, "vectors.safetensors", err);
    }
    if (status == STATUS_OK) {
        status = write_vectors(path, n_items, dim, seed, err);
    }
    if (status == STATUS_OK) {
        status = path_join(path, model, "model.safetensors", err);
    }
    if (status == STATUS_OK) {
        decay_settings_default(&settings);
        status = decay_model_write(path, dim, &settings, err);
    }
    if (status != STATUS_OK) {
        return status;
    }
    FILE *files[] = {create(dir, "items.csv"), create(model, "item_ids.txt"),
                     create(model, "histories.jsonl")};
    if (files[0] != NULL && files[1] != NULL && files[2] != NULL) {
        write_items(files[0], files[1], n_items);
        write_histories(files[2], n_items);
    }
    return close_all(files, 3, err);
}

const char *bench_machine(void)
{
    static char text[512];
    char cpu[128] = "unknown";
    char line[512];
    FILE *info = fopen("/proc/cpuinfo", "re");
    while (info != NULL && fgets(line, sizeof(line), info) != NULL) {
        const char *colon = strchr(line, ':');
        if (strncmp(line, "model name", 10) == 0 && colon != NULL) {
            (void)snprintf(cpu, sizeof(cpu), "%.100s", colon + 2);
            cpu[strcspn(cpu, "\n")] = '\0';
            break;
        }
    }
    if (info != NULL) {
        (void)fclose(info);
    }
    (void)snprintf(text, sizeof(text), "\"commit\": \"%s\", \"cpu\": \"%s\", \"flags\": \"%s\"",
                   AISLE_COMMIT, cpu, AISLE_C_FLAGS);
    return text;
}
