/* libcuda, as lab hosts have it: answers what the real one would in the same state. VERSION comes with -D. */

#include <dirent.h>
#include <stdio.h>
#include <string.h>

static int number_in(const char *path) {
  int number = 0;
  FILE *file = fopen(path, "r");
  if (file) {
    if (fscanf(file, "%d", &number) != 1) number = 0;
    fclose(file);
  }
  return number;
}

int cuDeviceGetCount(int *count) {
  *count = 0;
  DIR *folder = opendir("/proc/driver/nvidia/gpus");
  for (struct dirent *entry; folder && (entry = readdir(folder));)
    if (entry->d_name[0] != '.') ++*count;
  if (folder) closedir(folder);
  return 0;
}

int cuInit(unsigned flags) {
  char loaded[64] = "";
  int count = 0;
  (void)flags;
  FILE *file = fopen("/sys/module/nvidia/version", "r");
  if (file) {
    if (fscanf(file, "%63s", loaded) != 1) loaded[0] = 0;
    fclose(file);
  }
  if (!loaded[0]) return 100;
  if (strcmp(loaded, VERSION)) return 803;
  cuDeviceGetCount(&count);
  return count ? 0 : 100;
}

int cuDeviceGet(int *device, int number) {
  *device = number;
  return 0;
}

int cuDeviceTotalMem_v2(size_t *bytes, int device) {
  (void)device;
  *bytes = (size_t)number_in("/etc/lab-gpu-vram") << 20;
  return 0;
}
