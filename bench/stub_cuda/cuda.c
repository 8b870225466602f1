/* A driver that starts. */
int cuInit(unsigned flags) { return 0; }
