// The CUDA runtime, cuBLAS and cuDNN of a machine that has no GPU. They do nothing and count
// launches, copies, waits and memory. For LD_PRELOAD under a CUDA build of PyTorch. Every function
// that PyTorch links and that is not here returns 0: see build.py.
#define _GNU_SOURCE
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <cublasLt.h>
#include <cublas_v2.h>
#include <cuda_runtime_api.h>
#include <cudnn.h>
#undef cudaGetDeviceProperties

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static void *handle(void) { return calloc(1, 256); }

// ---- counters: events by name, and kernels by the address of their host function

#define KERNELS (1 << 18)
#define EVENTS 1024
static struct { const void *host; const char *name; long n; } kernels[KERNELS];
static struct { char name[80]; long n; double size; } events[EVENTS];
static int num_events;

void nullcuda_event(const char *name, double size) {
  pthread_mutex_lock(&lock);
  int i = 0;
  while (i < num_events && strncmp(events[i].name, name, 79)) i++;
  if (i == EVENTS) abort();
  if (i == num_events) strncpy(events[num_events++].name, name, 79);
  events[i].n++, events[i].size += size;
  pthread_mutex_unlock(&lock);
}

static int slot(const void *host) {  // open addressing
  int i = ((uint64_t)host >> 4) * 0x9E3779B97F4A7C15ull >> 46;
  while (kernels[i].host && kernels[i].host != host) i = (i + 1) & (KERNELS - 1);
  return i;
}

void nullcuda_reset(void) {
  for (int i = 0; i < KERNELS; i++) kernels[i].n = 0;
  memset(events, 0, sizeof events), num_events = 0;
}

// Lines of kind, count, size, name, separated by tabs; E is an event, K a kernel of PyTorch.
void nullcuda_report(const char *path) {
  FILE *out = fopen(path, "w");
  for (int i = 0; i < num_events; i++)
    fprintf(out, "E\t%ld\t%.0f\t%s\n", events[i].n, events[i].size, events[i].name);
  for (int i = 0; i < KERNELS; i++)
    if (kernels[i].n) fprintf(out, "K\t%ld\t0\t%s\n", kernels[i].n, kernels[i].name ? kernels[i].name : "?");
  fclose(out);
}

// ---- kernels: registration when a library is loaded, and launch

void **__cudaRegisterFatBinary(void *binary) { return handle(); }
char __cudaInitModule(void **module) { return 1; }
void __cudaRegisterFunction(void **module, const char *host, char *device, const char *name, int limit,
                            void *a, void *b, void *c, void *d, int *e) {
  pthread_mutex_lock(&lock);
  int i = slot(host);
  kernels[i].host = host, kernels[i].name = name;
  pthread_mutex_unlock(&lock);
}

struct call { dim3 grid, block; size_t shared; void *stream; };
static __thread struct call calls[16];
static __thread int depth;
unsigned __cudaPushCallConfiguration(dim3 grid, dim3 block, size_t shared, void *stream) {
  calls[depth++ & 15] = (struct call){grid, block, shared, stream};
  return 0;
}
cudaError_t __cudaPopCallConfiguration(dim3 *grid, dim3 *block, size_t *shared, void *stream) {
  struct call c = calls[--depth & 15];
  *grid = c.grid, *block = c.block, *shared = c.shared, *(void **)stream = c.stream;
  return 0;
}

static cudaError_t launch(const void *host) {
  pthread_mutex_lock(&lock);
  int i = slot(host);
  kernels[i].host = host, kernels[i].n++;
  pthread_mutex_unlock(&lock);
  nullcuda_event("launch", 0);
  return 0;
}
cudaError_t __cudaGetKernel(cudaKernel_t *kernel, const void *host) { *kernel = (cudaKernel_t)host; return 0; }
cudaError_t __cudaLaunchKernel(cudaKernel_t k, dim3 g, dim3 b, void **a, size_t s, cudaStream_t st) { return launch(k); }
cudaError_t cudaLaunchKernel(const void *f, dim3 g, dim3 b, void **a, size_t s, cudaStream_t st) { return launch(f); }
cudaError_t cudaLaunchKernelExC(const cudaLaunchConfig_t *c, const void *f, void **a) { return launch(f); }

// ---- the device: the sizes of an H200

#define MEMORY (139ull << 30)
cudaError_t cudaGetDeviceCount(int *n) { *n = 1; return 0; }
cudaError_t cudaGetDevice(int *d) { *d = 0; return 0; }
cudaError_t cudaDriverGetVersion(int *v) { *v = 13000; return 0; }
cudaError_t cudaRuntimeGetVersion(int *v) { *v = 13000; return 0; }
cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *p, int d) {
  memset(p, 0, sizeof *p);
  strcpy(p->name, "null");
  p->totalGlobalMem = MEMORY, p->l2CacheSize = 60 << 20, p->totalConstMem = 65536, p->memoryBusWidth = 6144;
  p->major = 9, p->multiProcessorCount = 132, p->warpSize = 32, p->maxBlocksPerMultiProcessor = 32;
  p->maxThreadsPerBlock = 1024, p->maxThreadsPerMultiProcessor = 2048;
  p->maxThreadsDim[0] = p->maxThreadsDim[1] = 1024, p->maxThreadsDim[2] = 64;
  p->maxGridSize[0] = 2147483647, p->maxGridSize[1] = p->maxGridSize[2] = 65535;
  p->regsPerBlock = p->regsPerMultiprocessor = 65536;
  p->sharedMemPerBlock = 49152, p->sharedMemPerMultiprocessor = 233472, p->sharedMemPerBlockOptin = 232448;
  p->textureAlignment = 512, p->asyncEngineCount = 3;
  p->managedMemory = p->concurrentKernels = p->unifiedAddressing = 1;
  return 0;
}
cudaError_t cudaGetDeviceProperties_v2(struct cudaDeviceProp *p, int d) { return cudaGetDeviceProperties(p, d); }
cudaError_t cudaDeviceGetAttribute(int *v, enum cudaDeviceAttr a, int d) {
  switch (a) {
    case cudaDevAttrMaxThreadsPerBlock: case cudaDevAttrMaxBlockDimX: case cudaDevAttrMaxBlockDimY: *v = 1024; break;
    case cudaDevAttrMaxBlockDimZ: *v = 64; break;
    case cudaDevAttrMaxGridDimX: *v = 2147483647; break;
    case cudaDevAttrMaxGridDimY: case cudaDevAttrMaxGridDimZ: *v = 65535; break;
    case cudaDevAttrMaxSharedMemoryPerBlock: *v = 49152; break;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin: *v = 232448; break;
    case cudaDevAttrMaxSharedMemoryPerMultiprocessor: *v = 233472; break;
    case cudaDevAttrWarpSize: case cudaDevAttrMaxBlocksPerMultiprocessor: *v = 32; break;
    case cudaDevAttrMaxRegistersPerBlock: case cudaDevAttrMaxRegistersPerMultiprocessor: *v = 65536; break;
    case cudaDevAttrMultiProcessorCount: *v = 132; break;
    case cudaDevAttrMaxThreadsPerMultiProcessor: *v = 2048; break;
    case cudaDevAttrComputeCapabilityMajor: *v = 9; break;
    case cudaDevAttrComputeCapabilityMinor: *v = 0; break;
    default: *v = 1;
  }
  return 0;
}
cudaError_t cudaDeviceGetStreamPriorityRange(int *low, int *high) {
  if (low) *low = 0;
  if (high) *high = -5;
  return 0;
}
cudaError_t cudaDeviceCanAccessPeer(int *can, int a, int b) { *can = 0; return 0; }
cudaError_t cudaDeviceGetPCIBusId(char *id, int n, int d) { strncpy(id, "0000:00:00.0", n); return 0; }
cudaError_t cudaDeviceSynchronize(void) { nullcuda_event("wait cudaDeviceSynchronize", 0); return 0; }
const char *cudaGetErrorString(cudaError_t e) { return "null CUDA"; }
const char *cudaGetErrorName(cudaError_t e) { return "null CUDA"; }

// ---- memory: addresses of a reserved terabyte; pages exist once something is copied into them

#define ARENA (1ull << 40)
#define PIECES (1 << 16)
static char *arena, *unused;
static size_t used;
static struct { char *start; size_t size; int on_host; } pieces[PIECES];

static void keep(void *start, size_t size, int on_host) {
  pthread_mutex_lock(&lock);
  int i = 0;
  while (i < PIECES && pieces[i].start) i++;
  if (i == PIECES) abort();
  pieces[i].start = start, pieces[i].size = size, pieces[i].on_host = on_host;
  if (!on_host) used += size;
  pthread_mutex_unlock(&lock);
}

static const char *kind_of(const void *p) {
  const char *c = p;
  if (arena && c >= arena && c < arena + ARENA) return "device";
  for (int i = 0; i < PIECES; i++)
    if (pieces[i].on_host && c >= pieces[i].start && c < pieces[i].start + pieces[i].size) return "pinned";
  return "pageable";
}

cudaError_t cudaMalloc(void **p, size_t n) {
  if (used + n > MEMORY) return cudaErrorMemoryAllocation;
  if (!arena) {
    arena = mmap(0, ARENA, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (arena == MAP_FAILED) perror("null CUDA: mmap"), exit(2);
    unused = arena;
  }
  *p = unused, unused += (n + (2 << 20) - 1) & ~((2ull << 20) - 1);
  keep(*p, n, 0);
  return 0;
}
cudaError_t cudaFree(void *p) {
  for (int i = 0; i < PIECES; i++)
    if (p && pieces[i].start == p) {
      used -= pieces[i].size, madvise(p, pieces[i].size, MADV_DONTNEED);
      memset(&pieces[i], 0, sizeof pieces[i]);
    }
  return 0;
}
cudaError_t cudaMallocAsync(void **p, size_t n, cudaStream_t s) { return cudaMalloc(p, n); }
cudaError_t cudaFreeAsync(void *p, cudaStream_t s) { return cudaFree(p); }
cudaError_t cudaMemGetInfo(size_t *free_, size_t *total) { *total = MEMORY, *free_ = MEMORY - used; return 0; }
cudaError_t cudaHostAlloc(void **p, size_t n, unsigned f) {
  *p = calloc(1, n);
  keep(*p, n, 1);
  return 0;
}
cudaError_t cudaHostRegister(void *p, size_t n, unsigned f) { keep(p, n, 1); return 0; }
cudaError_t cudaHostUnregister(void *p) {
  for (int i = 0; i < PIECES; i++)
    if (pieces[i].start == p) memset(&pieces[i], 0, sizeof pieces[i]);
  return 0;
}
cudaError_t cudaFreeHost(void *p) { cudaHostUnregister(p), free(p); return 0; }
cudaError_t cudaPointerGetAttributes(struct cudaPointerAttributes *a, const void *p) {
  const char *kind = kind_of(p);
  memset(a, 0, sizeof *a);
  a->type = *kind == 'd' ? cudaMemoryTypeDevice : kind[1] == 'i' ? cudaMemoryTypeHost : cudaMemoryTypeUnregistered;
  a->devicePointer = a->hostPointer = (void *)p;
  return 0;
}

static cudaError_t copied(const char *how, void *to, const void *from, size_t n) {
  char name[80];
  snprintf(name, sizeof name, "%s %s->%s", how, kind_of(from), kind_of(to));
  nullcuda_event(name, n);
  if (n < (64 << 20)) memmove(to, from, n);  // more would fill the memory of this machine
  return 0;
}
cudaError_t cudaMemcpy(void *to, const void *from, size_t n, enum cudaMemcpyKind k) {
  return copied("wait cudaMemcpy", to, from, n);
}
cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t n, enum cudaMemcpyKind k, cudaStream_t s) {
  return copied("copy", to, from, n);
}
cudaError_t cudaMemset(void *p, int v, size_t n) { nullcuda_event("memset", n); return 0; }
cudaError_t cudaMemsetAsync(void *p, int v, size_t n, cudaStream_t s) { nullcuda_event("memset", n); return 0; }
cudaError_t cudaGetSymbolAddress(void **p, const void *symbol) {
  static char room[1 << 16];
  *p = room;
  return 0;
}

// ---- streams and events: all is done at once

cudaError_t cudaStreamCreate(cudaStream_t *s) { *s = handle(); return 0; }
cudaError_t cudaStreamCreateWithFlags(cudaStream_t *s, unsigned f) { *s = handle(); return 0; }
cudaError_t cudaStreamCreateWithPriority(cudaStream_t *s, unsigned f, int p) { *s = handle(); return 0; }
cudaError_t cudaStreamGetPriority(cudaStream_t s, int *p) { *p = 0; return 0; }
cudaError_t cudaStreamSynchronize(cudaStream_t s) { nullcuda_event("wait cudaStreamSynchronize", 0); return 0; }
cudaError_t cudaStreamIsCapturing(cudaStream_t s, enum cudaStreamCaptureStatus *c) { *c = 0; return 0; }
cudaError_t cudaStreamGetCaptureInfo(cudaStream_t s, enum cudaStreamCaptureStatus *c, unsigned long long *id,
                                     cudaGraph_t *g, const cudaGraphNode_t **d, const cudaGraphEdgeData **e,
                                     size_t *n) {
  *c = 0;
  if (id) *id = 0;
  if (n) *n = 0;
  return 0;
}
cudaError_t cudaEventCreate(cudaEvent_t *e) { *e = handle(); return 0; }
cudaError_t cudaEventCreateWithFlags(cudaEvent_t *e, unsigned f) { *e = handle(); return 0; }
cudaError_t cudaEventElapsedTime(float *ms, cudaEvent_t a, cudaEvent_t b) { *ms = 1; return 0; }
cudaError_t cudaEventSynchronize(cudaEvent_t e) { nullcuda_event("wait cudaEventSynchronize", 0); return 0; }
cudaError_t cudaStreamWaitEvent(cudaStream_t s, cudaEvent_t e, unsigned f) { nullcuda_event("stream waits", 0); return 0; }
cudaError_t cudaLaunchHostFunc(cudaStream_t s, cudaHostFn_t f, void *data) { f(data); return 0; }
cudaError_t cudaStreamAddCallback(cudaStream_t s, cudaStreamCallback_t f, void *data, unsigned flags) {
  f(s, 0, data);
  return 0;
}

// ---- functions

cudaError_t cudaFuncGetAttributes(struct cudaFuncAttributes *a, const void *f) {
  memset(a, 0, sizeof *a);
  a->maxThreadsPerBlock = 1024, a->numRegs = 32, a->ptxVersion = a->binaryVersion = 90;
  a->maxDynamicSharedSizeBytes = 49152;
  return 0;
}
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int *n, const void *f, int threads, size_t s,
                                                                   unsigned g) {
  *n = threads > 64 ? 2048 / threads : 32;
  return 0;
}
static int nothing() { return 0; }
static int context_state(int device, unsigned *flags, int *active) {
  if (flags) *flags = 0;
  *active = 1;
  return 0;
}
cudaError_t cudaGetDriverEntryPointByVersion(const char *name, void **p, unsigned version, unsigned long long flags,
                                             enum cudaDriverEntryPointQueryResult *found) {
  *p = strcmp(name, "cuDevicePrimaryCtxGetState") ? (void *)nothing : (void *)context_state;
  if (found) *found = 0;
  return 0;
}

// ---- cuBLAS: counts each product with its number types and its operations

static cublasMath_t math_mode;
static int product(int in, int out, double m, double n, double k, double batch) {
  static const char *types[] = {"fp32", "fp64", "fp16"};
  const char *from = in == 14 ? "bf16" : in < 3 ? types[in] : "?", *to = out == 14 ? "bf16" : out < 3 ? types[out] : "?";
  char name[80];
  snprintf(name, sizeof name, "product %s->%s", in == 0 && (math_mode & 3) ? "tf32" : from, to);
  nullcuda_event(name, 2 * m * n * k * batch);
  nullcuda_event("launch", 0);
  return 0;
}
cublasStatus_t cublasCreate_v2(cublasHandle_t *h) { *h = handle(); return 0; }
cublasStatus_t cublasGetMathMode(cublasHandle_t h, cublasMath_t *m) { *m = math_mode; return 0; }
cublasStatus_t cublasSetMathMode(cublasHandle_t h, cublasMath_t m) { math_mode = m; return 0; }
cublasStatus_t cublasGetPointerMode_v2(cublasHandle_t h, cublasPointerMode_t *m) { *m = 0; return 0; }
cublasStatus_t cublasSgemm_v2(cublasHandle_t h, cublasOperation_t ta, cublasOperation_t tb, int m, int n, int k,
                              const float *al, const float *a, int lda, const float *b, int ldb, const float *be,
                              float *c, int ldc) {
  return product(0, 0, m, n, k, 1);
}
cublasStatus_t cublasGemmEx(cublasHandle_t h, cublasOperation_t ta, cublasOperation_t tb, int m, int n, int k,
                            const void *al, const void *a, cudaDataType at, int lda, const void *b, cudaDataType bt,
                            int ldb, const void *be, void *c, cudaDataType ct, int ldc, cublasComputeType_t ty,
                            cublasGemmAlgo_t g) {
  return product(at, ct, m, n, k, 1);
}
cublasStatus_t cublasSgemmStridedBatched(cublasHandle_t h, cublasOperation_t ta, cublasOperation_t tb, int m, int n,
                                         int k, const float *al, const float *a, int lda, long long sa,
                                         const float *b, int ldb, long long sb, const float *be, float *c, int ldc,
                                         long long sc, int batch) {
  return product(0, 0, m, n, k, batch);
}
cublasStatus_t cublasGemmStridedBatchedEx(cublasHandle_t h, cublasOperation_t ta, cublasOperation_t tb, int m, int n,
                                          int k, const void *al, const void *a, cudaDataType at, int lda,
                                          long long sa, const void *b, cudaDataType bt, int ldb, long long sb,
                                          const void *be, void *c, cudaDataType ct, int ldc, long long sc, int batch,
                                          cublasComputeType_t ty, cublasGemmAlgo_t g) {
  return product(at, ct, m, n, k, batch);
}
struct layout { int type; double rows, columns; };
cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t *l, cudaDataType t, uint64_t r, uint64_t c,
                                          int64_t ld) {
  struct layout *made = handle();
  made->type = t, made->rows = r, made->columns = c;
  *l = (void *)made;
  return 0;
}
cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t *d, cublasComputeType_t c, cudaDataType_t t) {
  *d = handle();
  return 0;
}
cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t *p) { *p = handle(); return 0; }
cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t h, cublasLtMatmulDesc_t d, cublasLtMatrixLayout_t a,
                                              cublasLtMatrixLayout_t b, cublasLtMatrixLayout_t c,
                                              cublasLtMatrixLayout_t e, cublasLtMatmulPreference_t p, int n,
                                              cublasLtMatmulHeuristicResult_t *r, int *found) {
  memset(r, 0, sizeof *r), *found = 1;
  return 0;
}
cublasStatus_t cublasLtMatmul(cublasLtHandle_t h, cublasLtMatmulDesc_t d, const void *al, const void *A,
                              cublasLtMatrixLayout_t a, const void *B, cublasLtMatrixLayout_t b, const void *be,
                              const void *C, cublasLtMatrixLayout_t c, void *D, cublasLtMatrixLayout_t e,
                              const cublasLtMatmulAlgo_t *g, void *w, size_t ws, cudaStream_t s) {
  const struct layout *left = (const void *)a, *out = (const void *)c;
  double inner = left->rows == out->rows ? left->columns : left->rows;
  return product(left->type, out->type, out->rows, out->columns, inner, 1);
}
size_t cublasLtGetVersion(void) { return 130101; }

// ---- cuDNN: its versions and handles, and what batch normalisation needs; convolutions are in
// counting.py

size_t cudnnGetVersion(void) { return CUDNN_VERSION; }
size_t cudnnGetCudartVersion(void) { return 13000; }
const char *cudnnGetErrorString(cudnnStatus_t s) { return "null cuDNN"; }
cudnnStatus_t cudnnGetProperty(libraryPropertyType t, int *v) {
  *v = t == 0 ? CUDNN_MAJOR : t == 1 ? CUDNN_MINOR : 0;
  return 0;
}
cudnnStatus_t cudnnCreate(cudnnHandle_t *h) { *h = handle(); return 0; }
cudnnStatus_t cudnnGetStream(cudnnHandle_t h, cudaStream_t *s) { *s = 0; return 0; }
cudnnStatus_t cudnnCreateTensorDescriptor(cudnnTensorDescriptor_t *d) { *d = handle(); return 0; }
cudnnStatus_t cudnnCreateActivationDescriptor(cudnnActivationDescriptor_t *d) { *d = handle(); return 0; }
cudnnStatus_t cudnnGetBatchNormalizationForwardTrainingExWorkspaceSize(
    cudnnHandle_t h, cudnnBatchNormMode_t m, cudnnBatchNormOps_t o, cudnnTensorDescriptor_t x,
    cudnnTensorDescriptor_t z, cudnnTensorDescriptor_t y, cudnnTensorDescriptor_t p, cudnnActivationDescriptor_t a,
    size_t *s) {
  *s = 0;
  return 0;
}
cudnnStatus_t cudnnGetBatchNormalizationBackwardExWorkspaceSize(
    cudnnHandle_t h, cudnnBatchNormMode_t m, cudnnBatchNormOps_t o, cudnnTensorDescriptor_t x,
    cudnnTensorDescriptor_t y, cudnnTensorDescriptor_t dy, cudnnTensorDescriptor_t dz, cudnnTensorDescriptor_t dx,
    cudnnTensorDescriptor_t p, cudnnActivationDescriptor_t a, size_t *s) {
  *s = 0;
  return 0;
}
cudnnStatus_t cudnnGetBatchNormalizationTrainingExReserveSpaceSize(
    cudnnHandle_t h, cudnnBatchNormMode_t m, cudnnBatchNormOps_t o, cudnnActivationDescriptor_t a,
    cudnnTensorDescriptor_t x, size_t *s) {
  *s = 0;
  return 0;
}
