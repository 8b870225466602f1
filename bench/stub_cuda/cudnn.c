/* A handle that is not null. */
#include <stdlib.h>

int cudnnCreate(void **handle) { *handle = calloc(1, 8); return 0; }
const char *cudnnGetErrorString(int status) { return "none"; }
size_t cudnnGetVersion(void) { return 91200; }
