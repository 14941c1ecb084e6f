// probe is a guest of the tests of this package: each word is one thing that a guest may try. Built by
//   clang --target=wasm32-wasi --sysroot=/usr -O1 -s -o probe.wasm probe.c && sha256sum probe.c > sources.sha256
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include <wasi/api.h>

#define IMPORT(name) __attribute__((import_module("ds_v1"), import_name(#name)))
IMPORT(call) unsigned long long ds_call(const void *, unsigned, const void *, unsigned, void *, unsigned);

static volatile unsigned deep;
static int recurse(int n) { volatile char pad[256]; pad[n & 255] = 1; deep++; return recurse(n + 1) + pad[0]; }

int main(int argc, char **argv) {
	const char *w = argc > 1 ? argv[1] : "";
	if (!strcmp(w, "exitcode")) __wasi_proc_exit((unsigned)strtoul(argv[2], 0, 0));
	if (!strcmp(w, "bounds")) { volatile char *p = (char *)0xfffffff0u; return *p; }
	if (!strcmp(w, "div")) { volatile int zero = 0; return 12345 / zero; }
	if (!strcmp(w, "indirect")) { int (*f)(int, int, int) = (int (*)(int, int, int))(void *)7777; return f(1, 2, 3); }
	if (!strcmp(w, "recurse")) return recurse(0);
	if (!strcmp(w, "poll")) {
		struct pollfd f = {.fd = 0, .events = POLLIN};
		int n = poll(&f, 1, argc > 2 ? atoi(argv[2]) : -1);
		printf("poll: %d\n", n);
		return 0;
	}
	if (!strcmp(w, "callfor")) {
		char reply[64];
		unsigned long long r = ds_call(argv[2], strlen(argv[2]), "", 0, reply, sizeof reply);
		printf("code %u\n", (unsigned)(r >> 32));
		return 0;
	}
	if (!strcmp(w, "callwait")) { // host call, then go on for ever
		char reply[64];
		ds_call(argv[2], strlen(argv[2]), "", 0, reply, sizeof reply);
		for (volatile int forever = 1; forever;) continue;
	}
	if (!strcmp(w, "bench")) {
		char reply[128], req[64];
		memset(req, 'x', sizeof req);
		for (long i = atol(argv[3]); i > 0; i--) ds_call(argv[2], strlen(argv[2]), req, sizeof req, reply, sizeof reply);
		return 0;
	}
	if (!strcmp(w, "openmany")) {
		int n = 0;
		for (; n < 200000; n++) if (open(argv[2], O_RDONLY) < 0) break;
		printf("opened %d\n", n);
		return 0;
	}
	if (!strcmp(w, "rename")) return rename(argv[2], argv[3]) ? errno : 0;
	if (!strcmp(w, "sleep0")) { // exits 0 although its sleep was cut short
		struct timespec t = {3600, 0};
		nanosleep(&t, 0);
		return 0;
	}
	if (!strcmp(w, "grace")) { // cleans up after the first signal
		struct timespec t = {3600, 0};
		nanosleep(&t, 0);
		puts("cleaned up");
		return 0;
	}
	return 99;
}
