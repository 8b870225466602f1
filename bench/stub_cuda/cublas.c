/* Handles that are not null. */
#include <stdlib.h>

int stub_products; /* Calls, to be read by ctypes. */

int cublasCreate_v2(void **handle) { *handle = calloc(1, 8); return 0; }
const char *cublasGetStatusName(int status) { return "none"; }
const char *cublasGetStatusString(int status) { return "none"; }
