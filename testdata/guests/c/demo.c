// demo is a small plugin in C on ds_v1.h: it reads a setting, keeps a blob in the cache, publishes an event,
// keeps a counter in the state store and is refused what nobody granted. Each word below is also a command of
// its own; the commands after them probe what a module may do without the host ABI.
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "ds_v1.h"

extern char **environ;

static uint8_t request[4096], reply[64 << 10];
static ds_writer w;
static uint32_t reply_len;

static void begin(void) { w = ds_writer_of(request, sizeof request); }

static uint32_t invoke(const char *method) { return ds_invoke(method, &w, reply, sizeof reply, &reply_len); }

static void put(const void *p, size_t n) { fwrite(p, 1, n, stdout); }

// failed prints what the host said to a call and returns 1, the exit code.
static int failed(const char *what, uint32_t code) {
	ds_status s = ds_status_of(reply, reply_len);
	printf("%s: code %u, ", what, (unsigned)code);
	put(s.reason, s.reason_len);
	printf(": ");
	put(s.message, s.message_len);
	if (s.fix_len > 0) {
		printf("; to allow: ");
		put(s.fix, s.fix_len);
	}
	putchar('\n');
	return 1;
}

// field is a reader that stands on the field of the reply, or on an empty one if it is absent.
static ds_reader field(uint32_t number) {
	ds_reader r = ds_reader_of(reply, reply_len), last = {0};
	while (ds_next(&r) > 0)
		if (r.field == number) last = r;
	return last;
}

static const char *plugin(void) {
	const char *name = getenv("DS_PLUGIN");
	return name != NULL ? name : "demo";
}

static int do_config(void) {
	char key[128];
	snprintf(key, sizeof key, "settings.%s.greeting", plugin());
	begin();
	ds_put_str(&w, DS_GET_CONFIG_REQUEST_KEY, key);
	uint32_t code = invoke(DS_METHOD_CONFIG_GET);
	if (code != DS_OK) return failed("config", code);
	ds_reader json = field(DS_CONFIG_VALUE_JSON);
	printf("config: %s = ", key);
	put(json.bytes, json.len);
	putchar('\n');
	return 0;
}

static int do_cache(void) {
	static const char text[] = "a blob that a C guest put into the cache\n";
	const uint32_t size = sizeof text - 1;

	begin();
	ds_put_int(&w, DS_CREATE_BLOB_REQUEST_SIZE, size);
	ds_put_str(&w, DS_CREATE_BLOB_REQUEST_MEDIA_TYPE, "text/plain");
	uint32_t code = invoke(DS_METHOD_CACHE_CREATE);
	if (code != DS_OK) return failed("cache create", code);
	uint32_t sink = (uint32_t)field(DS_OPENED_BLOB_HANDLE).num;

	uint64_t r = ds_write(sink, text, size);
	if (DS_CODE(r) != DS_OK) {
		reply_len = ds_taken(reply, sizeof reply);
		return failed("cache write", DS_CODE(r));
	}
	begin();
	ds_put_int(&w, DS_COMMIT_REQUEST_HANDLE, sink);
	code = invoke(DS_METHOD_CACHE_COMMIT);
	if (code != DS_OK) return failed("cache commit", code);
	ds_reader digest = field(DS_BLOB_INFO_DIGEST);
	printf("cache: put %u bytes, ", (unsigned)size);
	put(digest.bytes, digest.len);
	putchar('\n');

	begin();
	ds_put_bytes(&w, DS_OPEN_BLOB_REQUEST_DIGEST, digest.bytes, digest.len);
	code = invoke(DS_METHOD_CACHE_OPEN);
	if (code != DS_OK) return failed("cache open", code);
	uint32_t blob = (uint32_t)field(DS_OPENED_BLOB_HANDLE).num, have = 0;
	char back[sizeof text];
	for (;;) {
		r = ds_read(blob, back + have, sizeof back - have);
		if (DS_CODE(r) != DS_OK) {
			reply_len = ds_taken(reply, sizeof reply);
			return failed("cache read", DS_CODE(r));
		}
		if (DS_N(r) == 0) break;
		have += DS_N(r);
	}
	ds_close(blob, DS_RELEASE);
	int equal = have == size && memcmp(back, text, size) == 0;
	printf("cache: read %u bytes back, %s\n", (unsigned)have, equal ? "equal" : "DIFFERENT");
	return !equal;
}

static int do_event(void) {
	char topic[128], data[128];
	snprintf(topic, sizeof topic, "%s.greeted", plugin());
	snprintf(data, sizeof data, "{\"from\":\"%s\"}", plugin());
	begin();
	ds_put_str(&w, DS_EVENT_TOPIC, topic);
	ds_put_str(&w, DS_EVENT_CONTENT_TYPE, "application/json");
	ds_put_str(&w, DS_EVENT_DATA, data);
	ds_put_pair(&w, DS_EVENT_ATTRIBUTES, "language", "c");
	uint32_t code = invoke(DS_METHOD_EVENTS_PUBLISH);
	if (code != DS_OK) return failed("event", code);
	printf("event: published %s\n", topic);
	return 0;
}

// do_listen waits until one event of a topic comes or time is over, by Poll.
static int do_listen(const char *topic, long seconds) {
	char subscription[64] = "";
	for (long waited = 0; waited <= seconds * 1000; waited += 100) {
		begin();
		if (subscription[0] == 0)
			ds_put_str(&w, DS_POLL_REQUEST_TOPICS, topic);
		else
			ds_put_str(&w, DS_POLL_REQUEST_SUBSCRIPTION, subscription);
		ds_put_int(&w, DS_POLL_REQUEST_MAX, 1);
		ds_put_int(&w, DS_POLL_REQUEST_WAIT, 100);
		uint32_t code = invoke(DS_METHOD_EVENTS_POLL);
		if (code != DS_OK) return failed("listen", code);
		ds_reader id = field(DS_POLL_REPLY_SUBSCRIPTION), event = field(DS_POLL_REPLY_EVENTS);
		snprintf(subscription, sizeof subscription, "%.*s", (int)id.len, (const char *)id.bytes);
		if (event.bytes == NULL) continue;
		for (ds_reader e = ds_inside(&event); ds_next(&e) > 0;) {
			if (e.field != DS_EVENT_TOPIC && e.field != DS_EVENT_DATA) continue;
			printf(e.field == DS_EVENT_TOPIC ? "listen: " : " ");
			put(e.bytes, e.len);
		}
		putchar('\n');
		return 0;
	}
	puts("listen: nothing came");
	return 1;
}

static int do_state(void) {
	char value[24];
	long runs = 0;
	begin();
	ds_put_str(&w, DS_STATE_KEY_KEY, "runs");
	uint32_t code = invoke(DS_METHOD_STATE_GET);
	if (code == DS_OK) {
		ds_reader v = field(DS_STATE_ENTRY_VALUE);
		snprintf(value, sizeof value, "%.*s", (int)v.len, (const char *)v.bytes);
		runs = strtol(value, NULL, 10);
	} else if (code != DS_NOT_FOUND) {
		return failed("state get", code);
	}

	snprintf(value, sizeof value, "%ld", runs + 1);
	begin();
	ds_put_str(&w, DS_PUT_STATE_REQUEST_KEY, "runs");
	ds_put_str(&w, DS_PUT_STATE_REQUEST_VALUE, value);
	code = invoke(DS_METHOD_STATE_PUT);
	if (code != DS_OK) return failed("state put", code);

	begin();
	ds_put_str(&w, DS_STATE_KEY_KEY, "runs");
	code = invoke(DS_METHOD_STATE_GET);
	if (code != DS_OK) return failed("state get", code);
	ds_reader v = field(DS_STATE_ENTRY_VALUE);
	int equal = ds_is(&v, value);
	printf("state: runs = ");
	put(v.bytes, v.len);
	puts(equal ? "" : " DIFFERENT");
	return !equal;
}

// do_denied succeeds when the host refuses a registry that the plugin did not ask for.
static int do_denied(void) {
	begin();
	ds_put_str(&w, DS_REF_REQUEST_REF, "ghcr.io/delivery-station/porter:latest");
	uint32_t code = invoke(DS_METHOD_REGISTRY_RESOLVE);
	if (code == DS_OK) {
		puts("denied: the call went through");
		return 1;
	}
	failed("denied", code);
	return code != DS_PERMISSION_DENIED;
}

static int do_all(void) {
	int bad = do_config();
	bad |= do_cache();
	bad |= do_event();
	bad |= do_state();
	return bad | do_denied();
}

static int fail(const char *what, const char *name) {
	fflush(stdout);
	fprintf(stderr, "%s: %s: %s\n", what, name, strerror(errno));
	return 1;
}

static int write_all(int fd, const char *p, size_t n) {
	while (n > 0) {
		ssize_t done = write(fd, p, n);
		if (done < 0) return -1;
		p += done;
		n -= (size_t)done;
	}
	return 0;
}

static int copy(int from, const char *name) {
	static char buf[64 << 10];
	for (;;) {
		ssize_t n = read(from, buf, sizeof buf);
		if (n < 0) return fail("read", name);
		if (n == 0) return 0;
		if (write_all(1, buf, (size_t)n) < 0) return fail("write", "stdout");
	}
}

// do_flood writes size bytes, byte i being i % 251: a lost or doubled piece shows.
static int do_flood(unsigned long long size) {
	static char buf[251 * 256];
	for (size_t i = 0; i < sizeof buf; i++) buf[i] = (char)(i % 251);
	while (size > 0) {
		size_t n = size < sizeof buf ? (size_t)size : sizeof buf;
		if (write_all(1, buf, n) < 0) return fail("write", "stdout");
		size -= n;
	}
	return 0;
}

static int do_oom(void) {
	while (__builtin_wasm_memory_grow(0, 16) != (size_t)-1) continue;
	printf("oom: %zu pages\n", __builtin_wasm_memory_size(0));
	return 0;
}

static int do_write(const char *name, const char *text) {
	int fd = open(name, O_WRONLY | O_CREAT | O_TRUNC, 0666);
	if (fd < 0) return fail("write", name);
	if (write_all(fd, text, strlen(text)) < 0 || close(fd) < 0) return fail("write", name);
	return 0;
}

static int do_cat(const char *name) {
	int fd = open(name, O_RDONLY);
	if (fd < 0) return fail("cat", name);
	int bad = copy(fd, name);
	close(fd);
	return bad;
}

static int by_name(const struct dirent **a, const struct dirent **b) { return strcmp((*a)->d_name, (*b)->d_name); }

static int do_ls(const char *name) {
	struct dirent **list;
	int n = scandir(name, &list, NULL, by_name);
	if (n < 0) return fail("ls", name);
	for (int i = 0; i < n; i++) {
		if (strcmp(list[i]->d_name, ".") == 0 || strcmp(list[i]->d_name, "..") == 0) continue;
		printf("%s%s\n", list[i]->d_name, list[i]->d_type == DT_DIR ? "/" : "");
	}
	return 0;
}

static int usage(void) {
	fputs("usage: demo [config|cache|event|listen TOPIC SECONDS|state|denied|exit N|echo|args|env|isatty|flood BYTES|trap|loop|\n"
	      "            sleep SECONDS|oom|cat FILE|write FILE TEXT|ls DIR]\n", stderr);
	return 2;
}

int main(int argc, char **argv) {
	if (argc < 2) return do_all();
	const char *word = argv[1];
	if (strcmp(word, "config") == 0) return do_config();
	if (strcmp(word, "cache") == 0) return do_cache();
	if (strcmp(word, "event") == 0) return do_event();
	if (strcmp(word, "listen") == 0 && argc == 4) return do_listen(argv[2], atol(argv[3]));
	if (strcmp(word, "state") == 0) return do_state();
	if (strcmp(word, "denied") == 0) return do_denied();
	if (strcmp(word, "exit") == 0 && argc == 3) return atoi(argv[2]);
	if (strcmp(word, "echo") == 0) return copy(0, "stdin");
	if (strcmp(word, "flood") == 0 && argc == 3) return do_flood(strtoull(argv[2], NULL, 10));
	if (strcmp(word, "oom") == 0) return do_oom();
	if (strcmp(word, "cat") == 0 && argc == 3) return do_cat(argv[2]);
	if (strcmp(word, "write") == 0 && argc == 4) return do_write(argv[2], argv[3]);
	if (strcmp(word, "ls") == 0 && argc == 3) return do_ls(argv[2]);
	if (strcmp(word, "trap") == 0) __builtin_trap();
	if (strcmp(word, "args") == 0) {
		for (int i = 0; i < argc; i++) puts(argv[i]);
		return 0;
	}
	if (strcmp(word, "env") == 0) {
		for (char **e = environ; *e != NULL; e++) puts(*e);
		return 0;
	}
	if (strcmp(word, "isatty") == 0) {
		printf("isatty: stdin=%d stdout=%d stderr=%d\n", isatty(0), isatty(1), isatty(2));
		return 0;
	}
	if (strcmp(word, "loop") == 0)
		for (volatile int forever = 1; forever;) continue;
	if (strcmp(word, "sleep") == 0 && argc == 3) {
		struct timespec t = {atol(argv[2]), 0};
		nanosleep(&t, NULL);
		return 0;
	}
	return usage();
}
