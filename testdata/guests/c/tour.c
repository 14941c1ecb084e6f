// tour is the acceptance program in C on ds_v1.h: every language of testdata/guests has the same one.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ds_v1.h"

static uint8_t buf[256 << 10]; // of requests and replies
static char data[16 << 20];    // standard input
static ds_writer w;
static uint32_t reply_len;

static void begin(void) { w = ds_writer_of(buf, sizeof buf); }

static void put(const void *p, size_t n) { fwrite(p, 1, n, stdout); }

static const char *same(int yes) { return yes ? "the same" : "SOMETHING ELSE"; }

// fail says what the host refused and ends the program.
static void fail(const char *what, uint32_t code) {
	ds_status s = ds_status_of(buf, reply_len);
	fprintf(stderr, "%s: code %u: %.*s\n", what, (unsigned)code, (int)s.message_len, s.message);
	exit(1);
}

static uint32_t invoke(const char *method) { return ds_invoke(method, &w, buf, sizeof buf, &reply_len); }

static void must(const char *method) {
	uint32_t code = invoke(method);
	if (code != DS_OK) fail(method, code);
}

// checked is n of an import's result; the program ends if it is an error.
static uint32_t checked(const char *what, uint64_t result) {
	if (DS_CODE(result) != DS_OK) {
		reply_len = ds_taken(buf, sizeof buf);
		fail(what, DS_CODE(result));
	}
	return DS_N(result);
}

// field is a reader that stands on a field of the reply, or on an empty one.
static ds_reader field(uint32_t number) {
	ds_reader r = ds_reader_of(buf, reply_len), last = {0};
	while (ds_next(&r) > 0)
		if (r.field == number) last = r;
	return last;
}

static void config(const char *plugin) {
	char key[128];
	snprintf(key, sizeof key, "settings.%s.greeting", plugin);
	begin();
	ds_put_str(&w, DS_GET_CONFIG_REQUEST_KEY, key);
	must(DS_METHOD_CONFIG_GET);
	ds_reader json = field(DS_CONFIG_VALUE_JSON);
	printf("config: %.*s\n", (int)json.len - 2, (const char *)json.bytes + 1); // without its quotes
}

static void cache(uint32_t size) {
	begin();
	ds_put_str(&w, DS_CREATE_BLOB_REQUEST_MEDIA_TYPE, "text/plain");
	must(DS_METHOD_CACHE_CREATE);
	uint32_t sink = (uint32_t)field(DS_OPENED_BLOB_HANDLE).num;
	checked("write", ds_write(sink, data, size));
	begin();
	ds_put_int(&w, DS_COMMIT_REQUEST_HANDLE, sink);
	must(DS_METHOD_CACHE_COMMIT);
	ds_reader digest = field(DS_BLOB_INFO_DIGEST);
	printf("cache: put %.*s\n", (int)digest.len, (const char *)digest.bytes);

	static char back[sizeof data + 1];
	uint32_t have = 0;
	ds_writer open = ds_writer_of(back, sizeof back); // the digest is still in buf
	ds_put_bytes(&open, DS_OPEN_BLOB_REQUEST_DIGEST, digest.bytes, digest.len);
	w = open;
	must(DS_METHOD_CACHE_OPEN);
	uint32_t blob = (uint32_t)field(DS_OPENED_BLOB_HANDLE).num;
	for (uint32_t n; (n = checked("read", ds_read(blob, back + have, sizeof back - have))) > 0;) have += n;
	ds_close(blob, DS_RELEASE);
	printf("cache: got %s\n", same(have == size && memcmp(back, data, size) == 0));
}

// visits asks for the counter; the reply stays.
static uint32_t visits(void) {
	begin();
	ds_put_str(&w, DS_STATE_KEY_KEY, "visits");
	uint32_t code = invoke(DS_METHOD_STATE_GET);
	if (code != DS_OK && code != DS_NOT_FOUND) fail("state", code);
	return code;
}

static void state(void) {
	char value[24] = "0";
	uint64_t revision = 0;
	if (visits() == DS_OK) {
		ds_reader v = field(DS_STATE_ENTRY_VALUE);
		snprintf(value, sizeof value, "%.*s", (int)v.len, (const char *)v.bytes);
		revision = field(DS_STATE_ENTRY_REVISION).num;
	}
	snprintf(value, sizeof value, "%ld", strtol(value, NULL, 10) + 1);
	begin();
	ds_put_str(&w, DS_PUT_STATE_REQUEST_KEY, "visits");
	ds_put_str(&w, DS_PUT_STATE_REQUEST_VALUE, value);
	ds_put_int(&w, DS_PUT_STATE_REQUEST_IF_REVISION, revision);
	must(DS_METHOD_STATE_PUT);
	visits();
	ds_reader v = field(DS_STATE_ENTRY_VALUE);
	printf("state: visits = %.*s\n", (int)v.len, (const char *)v.bytes);
}

static void event(const char *plugin, int words) {
	char topic[128], text[32];
	snprintf(topic, sizeof topic, "%s.done", plugin);
	snprintf(text, sizeof text, "{\"words\":%d}", words);
	begin();
	ds_put_str(&w, DS_EVENT_TOPIC, topic);
	ds_put_str(&w, DS_EVENT_CONTENT_TYPE, "application/json");
	ds_put_str(&w, DS_EVENT_DATA, text);
	ds_put_pair(&w, DS_EVENT_ATTRIBUTES, "language", "any");
	must(DS_METHOD_EVENTS_PUBLISH);
	printf("event: published %s\n", topic);
}

// call runs a command of the plugin demo with one word or none and with input; its output goes to out. The
// result is its exit code.
static int call(const char *command, const char *word, const char *input, uint32_t size, char *out, uint32_t *have) {
	int code = -1;
	*have = 0;
	begin();
	size_t start = ds_begin(&w, DS_CALL_REQUEST_START);
	ds_put_str(&w, DS_CALL_START_PLUGIN, "demo");
	ds_put_str(&w, DS_CALL_START_COMMAND, command);
	if (word != NULL) ds_put_str(&w, DS_CALL_START_ARGS, word);
	ds_end(&w, start);
	uint32_t h = checked("call", ds_open(DS_METHOD_PLUGINS_CALL, strlen(DS_METHOD_PLUGINS_CALL), w.p, (uint32_t)w.len));
	for (uint32_t sent = 0, n;;) { // either side may wait for the other
		uint32_t can = checked("call", ds_poll(h));
		if ((can & DS_POLL_SEND) && (n = size - sent < 64 << 10 ? size - sent : 64 << 10) > 0) {
			begin();
			ds_put_bytes(&w, DS_CALL_REQUEST_STDIN, input + sent, n);
			ds_send(h, w.p, (uint32_t)w.len); // what is wrong is for ds_recv to say
			sent += n;
		} else if (can & DS_POLL_SEND) {
			ds_close(h, DS_HALF_CLOSE);
		}
		if (!(can & DS_POLL_RECV)) continue;
		uint64_t r = ds_recv(h, buf, sizeof buf);
		if (DS_CODE(r) == DS_END) break;
		reply_len = checked("call", r);
		for (ds_reader e = ds_reader_of(buf, reply_len); ds_next(&e) > 0;) {
			if (e.field == DS_CALL_EVENT_STDOUT && e.len <= sizeof data - *have) {
				memcpy(out + *have, e.bytes, e.len);
				*have += (uint32_t)e.len;
			}
			if (e.field != DS_CALL_EVENT_EXIT) continue;
			code = 0; // a number that is 0 is not sent
			for (ds_reader x = ds_inside(&e); ds_next(&x) > 0;)
				if (x.field == DS_CALL_EXIT_CODE) code = (int)x.num;
		}
	}
	ds_close(h, DS_RELEASE);
	return code;
}

static void calls(uint32_t size) {
	static char out[sizeof data];
	uint32_t have;
	int code = call("echo", NULL, data, size, out, &have);
	printf("call: demo echo ended with %d and gave %s\n", code, same(have == size && memcmp(out, data, size) == 0));
	printf("call: demo exit ended with %d\n", call("exit", "3", NULL, 0, out, &have));
}

static void denied(void) {
	begin();
	ds_put_str(&w, DS_REF_REQUEST_REF, "ghcr.io/acme/app:1.4.0");
	uint32_t code = invoke(DS_METHOD_REGISTRY_RESOLVE);
	ds_status s = ds_status_of(buf, reply_len);
	printf("denied: code %u, ", (unsigned)code);
	put(s.reason, s.reason_len);
	printf(": ");
	put(s.message, s.message_len);
	putchar('\n');
}

int main(int argc, char **argv) {
	const char *plugin = getenv("DS_PLUGIN");
	if (plugin == NULL) return 2;
	printf("args: %d", argc - 1);
	for (int i = 1; i < argc; i++) printf(" [%s]", argv[i]);
	uint32_t size = (uint32_t)fread(data, 1, sizeof data, stdin);
	printf("\nstdin: %u bytes, %.*s\n", (unsigned)size, (int)strcspn(data, "\n"), data);
	config(plugin);
	cache(size);
	state();
	event(plugin, argc - 1);
	calls(size);
	denied();
	return 7;
}
