/* A CUDA driver and an NVML with two GPUs whose memory is this process's own. A launched kernel adds
 * as the probe's PTX does. FAKE_FAIL=function:code makes a function return an error; FAKE_WRONG=1
 * makes one sum wrong. Signatures: CUDA Driver API and NVML API Reference. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int failing(const char *name) {
    const char *told = getenv("FAKE_FAIL"), *colon = told ? strchr(told, ':') : NULL;
    size_t length = strlen(name);
    return colon && (size_t)(colon - told) == length && !strncmp(told, name, length) ? atoi(colon + 1) : 0;
}
#define TRY int failed = failing(__func__); if (failed) return failed

int cuInit(unsigned flags) { TRY; return flags; }
int cuDeviceGetCount(int *count) { TRY; *count = 2; return 0; }
int cuDeviceGet(int *device, int ordinal) { TRY; *device = ordinal + 70; return 0; }
int cuDeviceGetName(char *name, int size, int device) {
    TRY; snprintf(name, size, "Fake %d", device - 70); return 0;
}
int cuDeviceGetPCIBusId(char *address, int size, int device) {
    TRY; snprintf(address, size, "0000:0%d:00.0", device - 70 + 7); return 0;
}
int cuDeviceGetAttribute(int *value, int which, int device) {
    TRY; *value = device < 70 ? 0 : which == 36 ? 877000 : which == 37 ? 4096 : 0; return 0;
}
int cuGetErrorName(int code, const char **name) {
    *name = code == 802 ? "CUDA_ERROR_SYSTEM_NOT_READY" : "CUDA_ERROR_ILLEGAL_ADDRESS"; return 0;
}
int cuGetErrorString(int code, const char **text) { *text = "as told"; return code < 0; }
int cuDevicePrimaryCtxRetain(void **context, int device) {
    TRY; *context = (void *)(intptr_t)(0x7000000000000000 + device); return 0;
}
int cuDevicePrimaryCtxRelease(int device) { TRY; return device < 70; }
int cuCtxSetCurrent(void *context) { TRY; return (intptr_t)context < 0x7000000000000000 ? 201 : 0; }
int cuCtxSynchronize(void) { TRY; return 0; }
int cuMemGetInfo_v2(size_t *free, size_t *total) { TRY; *free = 16 << 20; *total = 64 << 20; return 0; }
int cuMemAlloc_v2(uint64_t *place, size_t size) { TRY; *place = (uint64_t)(uintptr_t)malloc(size); return 0; }
int cuMemFree_v2(uint64_t place) { TRY; free((void *)(uintptr_t)place); return 0; }
int cuMemcpyHtoD_v2(uint64_t to, const void *from, size_t size) {
    TRY; memcpy((void *)(uintptr_t)to, from, size); return 0;
}
int cuMemcpyDtoH_v2(void *to, uint64_t from, size_t size) {
    TRY; memcpy(to, (void *)(uintptr_t)from, size); return 0;
}
int cuMemcpyDtoD_v2(uint64_t to, uint64_t from, size_t size) {
    TRY; memcpy((void *)(uintptr_t)to, (void *)(uintptr_t)from, size); return 0;
}
int cuModuleLoadData(void **module, const char *image) {
    TRY; *module = (void *)(intptr_t)0x7100000000000000; return strstr(image, ".visible .entry add(") ? 0 : 218;
}
int cuModuleGetFunction(void **function, void *module, const char *name) {
    TRY; *function = module; return strcmp(name, "add") ? 500 : 0;
}
int cuLaunchKernel(void *function, unsigned x, unsigned y, unsigned z, unsigned threads, unsigned ty,
                   unsigned tz, unsigned shared, void *stream, void **values, void **extra) {
    TRY;
    uint32_t *left = *(uint32_t **)values[0], *right = *(uint32_t **)values[1];
    uint32_t *sum = *(uint32_t **)values[2], count = *(uint32_t *)values[3];
    if (y != 1 || z != 1 || ty != 1 || tz != 1 || shared || stream || extra) return 1;
    for (uint32_t i = 0; i < x * threads && i < count; i++) sum[i] = left[i] + right[i];
    if (getenv("FAKE_WRONG")) sum[5]++;
    return function ? 0 : 400;
}
int cuEventCreate(void **event, unsigned flags) { TRY; *event = (void *)(intptr_t)0x7200000000000000; return flags; }
int cuEventRecord(void *event, void *stream) { TRY; return !event || stream; }
int cuEventSynchronize(void *event) { TRY; return !event; }
int cuEventElapsedTime(float *milliseconds, void *begin, void *end) {
    TRY; *milliseconds = 0.5f; return !begin || !end;
}

const char *nvmlErrorString(int code) { return code == 15 ? "GPU is lost" : "Driver/library version mismatch"; }
int nvmlInit_v2(void) { TRY; return 0; }
int nvmlShutdown(void) { return 0; }
int nvmlSystemGetDriverVersion(char *version, unsigned size) { TRY; snprintf(version, size, "535.183.01"); return 0; }
int nvmlDeviceGetCount_v2(unsigned *count) { TRY; *count = 2; return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **device) {
    TRY; *device = (void *)(intptr_t)(0x7300000000000000 + index); return 0;
}
int nvmlDeviceGetUUID(void *device, char *uuid, unsigned size) {
    TRY; snprintf(uuid, size, "GPU-%d", (int)((intptr_t)device & 0xff)); return 0;
}
