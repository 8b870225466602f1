/* A device of compute capability 9.0 with 80 GiB, whose memory is the host's and whose kernels do nothing. */
#include <stdlib.h>
#include <string.h>

enum { MAJOR = 75, MINOR = 76, MULTIPROCESSORS = 16 };  /* of cudaDeviceAttr */

int cudaGetDeviceCount(int *n) { *n = 1; return 0; }
int cudaGetDevice(int *n) { *n = 0; return 0; }
int cudaDriverGetVersion(int *v) { *v = 13000; return 0; }
int cudaRuntimeGetVersion(int *v) { *v = 13000; return 0; }
int cudaMemGetInfo(size_t *free_, size_t *all) { *free_ = 79ul << 30; *all = 80ul << 30; return 0; }

int cudaDeviceGetAttribute(int *v, int which, int device) {
  *v = which == MAJOR ? 9 : which == MINOR ? 0 : which == MULTIPROCESSORS ? 132 : 1024;
  return 0;
}

/* cudaDeviceProp of CUDA 13, by offset: it begins with a name of 256 bytes, and ids. */
int cudaGetDeviceProperties(char *p, int device) {
  memset(p, 0, 1008);
  strcpy(p, "a device that computes nothing");
  *(size_t *)(p + 288) = 80ul << 30;   /* totalGlobalMem */
  *(size_t *)(p + 296) = 48 << 10;     /* sharedMemPerBlock */
  *(int *)(p + 304) = 65536;           /* regsPerBlock */
  *(int *)(p + 308) = 32;              /* warpSize */
  *(size_t *)(p + 312) = 2147483647ul; /* memPitch */
  *(int *)(p + 320) = 1024;            /* maxThreadsPerBlock */
  for (int at = 324; at < 348; at += 4) *(int *)(p + at) = 1024; /* maxThreadsDim, maxGridSize */
  *(size_t *)(p + 352) = 65536;        /* totalConstMem */
  *(int *)(p + 360) = 9;               /* major, minor */
  *(size_t *)(p + 368) = 512;          /* textureAlignment */
  *(int *)(p + 384) = 132;             /* multiProcessorCount */
  return 0;
}

static int taken(void **p, size_t n) { *p = calloc(1, n ? n : 1); return 0; }
int cudaMalloc(void **p, size_t n) { return taken(p, n); }
int cudaMallocHost(void **p, size_t n) { return taken(p, n); }
int cudaHostAlloc(void **p, size_t n, unsigned flags) { return taken(p, n); }
int cudaMallocFromPoolAsync(void **p, size_t n, void *pool, void *stream) { return taken(p, n); }
int cudaFree(void *p) { free(p); return 0; }
int cudaFreeHost(void *p) { free(p); return 0; }
int cudaFreeAsync(void *p, void *stream) { free(p); return 0; }

int cudaMemcpy(void *to, const void *from, size_t n, int kind) { memcpy(to, from, n); return 0; }
int cudaMemcpyAsync(void *to, const void *from, size_t n, int kind, void *s) { memcpy(to, from, n); return 0; }
int cudaMemset(void *p, int v, size_t n) { memset(p, v, n); return 0; }
int cudaMemsetAsync(void *p, int v, size_t n, void *stream) { memset(p, v, n); return 0; }

int cudaStreamCreate(void **s) { return taken(s, 8); }
int cudaStreamCreateWithFlags(void **s, unsigned flags) { return taken(s, 8); }
int cudaEventCreate(void **e) { return taken(e, 8); }
int cudaEventCreateWithFlags(void **e, unsigned flags) { return taken(e, 8); }
int cudaStreamIsCapturing(void *s, int *status) { *status = 0; return 0; }
int cudaPointerGetAttributes(char *a, const void *p) { memset(a, 0, 32); return 0; }

const char *cudaGetErrorName(int error) { return "none"; }
const char *cudaGetErrorString(int error) { return "none"; }

static void *binaries[8];
void **__cudaRegisterFatBinary(void *p) { return binaries; }

/* What a process did, to be read by ctypes. */
int stub_captures, stub_replays, stub_kernels;
int cudaStreamBeginCapture(void *s, int mode) { stub_captures++; return 0; }
int cudaStreamEndCapture(void *s, void **graph) { return taken(graph, 8); }
int cudaGraphInstantiate(void **ready, void *graph, unsigned long long flags) { return taken(ready, 8); }
int cudaGraphLaunch(void *ready, void *s) { stub_replays++; return 0; }
int cudaLaunchKernel(const void *f) { stub_kernels++; return 0; }
int cudaLaunchKernelExC(const void *config) { stub_kernels++; return 0; }
int __cudaLaunchKernel(const void *f) { stub_kernels++; return 0; }
