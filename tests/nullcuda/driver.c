// The CUDA driver, libcuda.so.1, which Triton loads and links. It counts Triton's launches in
// runtime.c. Every other function of cuda.h returns 0: see build.py.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cuda.h>
#undef cuGetProcAddress
#undef cuDevicePrimaryCtxRetain

static char context[256];
struct function { char name[64]; };

static CUresult launch(CUfunction f) {
  void (*event)(const char *, double) = dlsym(RTLD_DEFAULT, "nullcuda_event");
  char name[80];
  snprintf(name, sizeof name, "triton %s", ((struct function *)f)->name);
  if (event) event(name, 0), event("launch", 0);
  return 0;
}

CUresult cuDriverGetVersion(int *v) { *v = 13000; return 0; }
CUresult cuDeviceGetCount(int *n) { *n = 1; return 0; }
CUresult cuDeviceGet(CUdevice *d, int i) { *d = i; return 0; }
CUresult cuDeviceGetAttribute(int *v, CUdevice_attribute a, CUdevice d) {
  int (*runtime)(int *, int, int) = dlsym(RTLD_DEFAULT, "cudaDeviceGetAttribute");
  *v = 1;
  return runtime ? runtime(v, a, d) : 0;
}
CUresult cuCtxGetCurrent(CUcontext *c) { *c = (CUcontext)context; return 0; }
CUresult cuDevicePrimaryCtxRetain(CUcontext *c, CUdevice d) { return cuCtxGetCurrent(c); }
CUresult cuDevicePrimaryCtxGetState(CUdevice d, unsigned *flags, int *active) {
  if (flags) *flags = 0;
  *active = 1;
  return 0;
}
CUresult cuCtxGetDevice(CUdevice *d) { *d = 0; return 0; }
CUresult cuModuleLoadData(CUmodule *m, const void *image) { *m = calloc(1, 64); return 0; }
CUresult cuModuleLoadDataEx(CUmodule *m, const void *i, unsigned n, CUjit_option *o, void **v) {
  return cuModuleLoadData(m, i);
}
CUresult cuModuleLoad(CUmodule *m, const char *path) { return cuModuleLoadData(m, path); }
CUresult cuModuleGetFunction(CUfunction *f, CUmodule m, const char *name) {
  struct function *made = calloc(1, sizeof *made);
  strncpy(made->name, name, sizeof made->name - 1);
  *f = (CUfunction)made;
  return 0;
}
CUresult cuFuncGetModule(CUmodule *m, CUfunction f) { return cuModuleLoadData(m, 0); }
CUresult cuFuncGetAttribute(int *v, CUfunction_attribute a, CUfunction f) {
  *v = a == CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK ? 1024 : a == CU_FUNC_ATTRIBUTE_NUM_REGS ? 32 : 0;
  return 0;
}
CUresult cuOccupancyMaxActiveClusters(int *n, CUfunction f, const CUlaunchConfig *c) { *n = 1; return 0; }
CUresult cuGetErrorString(CUresult e, const char **s) { *s = "null CUDA"; return 0; }
CUresult cuGetErrorName(CUresult e, const char **s) { *s = "null CUDA"; return 0; }
CUresult cuLaunchKernel(CUfunction f, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                        unsigned shared, CUstream s, void **p, void **e) {
  return launch(f);
}
CUresult cuLaunchKernelEx(const CUlaunchConfig *c, CUfunction f, void **p, void **e) { return launch(f); }
CUresult cuPointerGetAttribute(void *data, CUpointer_attribute a, CUdeviceptr p) {
  memset(data, 0, 8);
  if (a == CU_POINTER_ATTRIBUTE_DEVICE_POINTER) *(CUdeviceptr *)data = p;
  return 0;
}
static CUresult nothing(void) { return 0; }
CUresult cuGetProcAddress_v2(const char *name, void **p, int version, cuuint64_t flags,
                             CUdriverProcAddressQueryResult *found) {
  void *here = dlsym(RTLD_DEFAULT, name);
  *p = here ? here : (void *)nothing;
  if (found) *found = 0;
  return 0;
}
