// bench is the C guest that internal/bench measures: host calls and output.
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "ds_v1.h"

static uint8_t request[256], reply[2 << 20];

// get reads a setting; result is the length of its JSON, negative if there is none.
static int get(const char *key) {
	ds_writer w = ds_writer_of(request, sizeof request);
	ds_put_str(&w, DS_GET_CONFIG_REQUEST_KEY, key);
	uint32_t n;
	if (ds_invoke(DS_METHOD_CONFIG_GET, &w, reply, sizeof reply, &n) != DS_OK) return -1;
	ds_reader r = ds_reader_of(reply, n);
	while (ds_next(&r) > 0)
		if (r.field == DS_CONFIG_VALUE_JSON) return (int)r.len;
	return -1;
}

// get_file does the same with files alone, for a guest without imports.
static int get_file(const char *key) {
	static const char path[] = "/ds/call/Config/Get", member[] = "\"json\":";
	int n = snprintf((char *)request, sizeof request, "{\"key\":\"%s\"}", key);
	int f = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
	if (f < 0) return -1;
	int ok = write(f, request, n) == n;
	if (close(f) != 0 || !ok) return -1;
	if ((f = open(path, O_RDONLY)) < 0) return -1;
	ssize_t got = 0, k;
	while ((k = read(f, reply + got, sizeof reply - 1 - got)) > 0) got += k;
	close(f);
	if (k < 0) return -1;
	reply[got] = 0;
	char *at = strstr((char *)reply, member);
	if (at == NULL) return -1;
	at += sizeof member - 1;
	at += strspn(at, " \"\\");
	return (int)strcspn(at, "\"\\") + 2; // as get counts it, with quotes
}

static long long now(void) {
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static int ascending(const void *a, const void *b) {
	long long x = *(const long long *)a, y = *(const long long *)b;
	return (x > y) - (x < y);
}

// calls reads a setting of this plugin n times, in blocks of 100, and prints what one call of the median block
// took.
static int calls(int (*get)(const char *), const char *setting, int n) {
	const char *plugin = getenv("DS_PLUGIN");
	char key[128];
	snprintf(key, sizeof key, "settings.%s.%s", plugin != NULL ? plugin : "", setting);
	enum { block = 100 };
	static long long times[10000];
	int blocks = 0;
	long long bytes = 0;
	for (; blocks * block < n && blocks < 10000; blocks++) {
		long long at = now();
		for (int i = 0; i < block; i++) {
			int len = get(key);
			if (len < 2) return 1;
			bytes += len - 2; // quotes
		}
		times[blocks] = (now() - at) / block;
	}
	if (blocks == 0) return 2;
	qsort(times, blocks, sizeof times[0], ascending);
	printf("calls %d bytes %lld ns %lld\n", blocks * block, bytes, times[blocks / 2]);
	return 0;
}

static int flood(unsigned long long left) {
	static char b[64 << 10];
	while (left > 0) {
		ssize_t n = write(1, b, left < sizeof b ? left : sizeof b);
		if (n <= 0) return 1;
		left -= n;
	}
	return 0;
}

int main(int argc, char **argv) {
	if (argc == 4 && strcmp(argv[1], "calls") == 0) return calls(get, argv[2], atoi(argv[3]));
	if (argc == 4 && strcmp(argv[1], "files") == 0) return calls(get_file, argv[2], atoi(argv[3]));
	if (argc == 3 && strcmp(argv[1], "flood") == 0) return flood(strtoull(argv[2], NULL, 10));
	fputs("usage: bench calls KEY N | files KEY N | flood BYTES\n", stderr);
	return 2;
}
