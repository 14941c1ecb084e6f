#include <stdint.h>
#include <stdio.h>
#include <string.h>

#define DS(name) __attribute__((import_module("ds_v1"), import_name(name)))
DS("call") uint64_t ds_call(const char *m, uint32_t mlen, const uint8_t *req, uint32_t reqlen, uint8_t *resp, uint32_t cap);
DS("take") uint64_t ds_take(uint8_t *dst, uint32_t cap);

static uint8_t req[256], reply[4096];

// put appends a text field of less than 128 bytes: the tag, the length, the bytes.
static uint32_t put(uint32_t at, uint8_t field, const char *text) {
	uint8_t n = (uint8_t)strlen(text);
	req[at] = (uint8_t)(field << 3 | 2);
	req[at + 1] = n;
	memcpy(req + at + 2, text, n);
	return at + 2 + n;
}

static uint64_t varint(const uint8_t **p) {
	uint64_t v = 0;
	for (int shift = 0;; shift += 7) {
		uint8_t c = *(*p)++;
		v |= (uint64_t)(c & 0x7f) << shift;
		if (c < 0x80 || shift == 63) return v;
	}
}

// find is the text of a field, with its length in n; the fields of another number or type are passed over.
static const char *find(const uint8_t *p, uint32_t len, uint32_t field, int *n) {
	const uint8_t *end = p + len;
	*n = 0;
	while (p < end) {
		uint64_t tag = varint(&p), size = (tag & 7) == 0 ? (varint(&p), 0) : varint(&p);
		if (tag >> 3 == field && (tag & 7) == 2) {
			*n = (int)size;
			return (const char *)p;
		}
		p += size;
	}
	return "";
}

int main(int argc, char **argv) {
	static const char get[] = "/ds.host.v1.Config/Get";
	uint32_t len = put(0, 1, "settings.greet.greeting"); // GetConfigRequest.key
	uint64_t r = ds_call(get, sizeof get - 1, req, len, reply, sizeof reply);
	uint32_t code = (uint32_t)(r >> 32), n = (uint32_t)r;
	int size;
	if (code != 0) { // n is the length of a Status, which waits to be taken
		ds_take(reply, sizeof reply);
		const char *text = find(reply, n, 2, &size); // Status.message
		fprintf(stderr, "greet: code %u: %.*s\n", (unsigned)code, size, text);
		return 1;
	}
	const char *json = find(reply, n, 2, &size); // ConfigValue.json: text in quotes
	printf("%.*s, %s\n", size - 2, json + 1, argc > 1 ? argv[1] : "World");
	return 0;
}
