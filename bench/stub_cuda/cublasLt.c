/* A handle that is not null. */
#include <stdlib.h>

int cublasLtCreate(void **handle) { *handle = calloc(1, 8); return 0; }
