/* A stand-in server as a process: a program of its own, as the real one is, whose work a Python program does as its
   child. SCRIPT: that program, relative to the folder of this one. */

#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

static volatile pid_t child;

static void forward(int number) {
  if (child > 0) kill(child, number);
}

int main(int count, char **words) {
  static char own[PATH_MAX], script[PATH_MAX + sizeof SCRIPT];
  if (readlink("/proc/self/exe", own, sizeof own - 1) < 0) return 70;
  *strrchr(own, '/') = 0;
  snprintf(script, sizeof script, "%s/" SCRIPT, own);
  char *command[count + 3];
  command[0] = "/usr/bin/python3";
  command[1] = "-IB";
  command[2] = script;
  memcpy(command + 3, words + 1, count * sizeof *words);
  signal(SIGTERM, forward);
  signal(SIGINT, forward);
  child = fork();
  if (child == 0) {
    signal(SIGTERM, SIG_DFL);
    signal(SIGINT, SIG_DFL);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    execv(command[0], command);
    _exit(70);
  }
  int status = 0;
  while (waitpid(child, &status, 0) < 0) continue;
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
