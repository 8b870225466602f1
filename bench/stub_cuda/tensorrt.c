/* A TensorRT provider without a kernel: the listing of all kernels follows its null pointer otherwise.
 *
 * Laid out as g++ lays out what onnxruntime asks for: objects that begin with a table of functions, smart
 * pointers returned through a first argument, an empty red-black tree. Only ever loaded by that listing. */
static char registry[4096];
static void *provider_table[64], *factory_table[64], *execution_table[200];
static struct { void **table; char rest[512]; } provider, factory, execution;

static void nothing(void) {}
static void *shared_factory(void **out) { out[0] = &factory; out[1] = 0; return out; }
static void *unique_execution(void **out) { out[0] = &execution; return out; }
static void *shared_registry(void **out) { out[0] = registry; out[1] = 0; return out; }

void *GetProvider(void) {
  /* The tree's header is 8 bytes into it; where it is empty, its leftmost and rightmost are the header. */
  *(void **)(registry + 24) = *(void **)(registry + 32) = registry + 8;
  for (int i = 0; i < 64; i++) provider_table[i] = shared_factory, factory_table[i] = unique_execution;
  for (int i = 0; i < 200; i++) execution_table[i] = shared_registry;
  provider_table[6] = provider_table[7] = provider_table[8] = nothing; /* begin, end, destroy */
  factory_table[0] = factory_table[1] = execution_table[0] = execution_table[1] = nothing;
  provider.table = provider_table, factory.table = factory_table, execution.table = execution_table;
  return &provider;
}
