// kit is the conformance kit's guest in C on ds_v1.h: does the host calls that stand on its standard input, one after
// the other. hosttest/relay.go has the other side.
#include <stdio.h>
#include <string.h>

#include "ds_v1.h"

enum { CALL, OPEN, SEND, HALF, RECV, CLOSE, POLL, READ, WRITE };

static uint8_t body[8 << 20], reply[8 << 20]; // of requests and answers
static char method[256];

// act does one operation and returns what its import did; answer is the room for what comes back.
static uint64_t act(int op, uint32_t handle, uint32_t mlen, uint32_t len) {
	switch (op) {
	case CALL: return ds_call(method, mlen, body, len, reply, 16 << 10);
	case OPEN: return ds_open(method, mlen, body, len);
	case SEND: return ds_send(handle, body, len);
	case HALF: return ds_close(handle, DS_HALF_CLOSE);
	case RECV: return ds_recv(handle, reply, 16 << 10);
	case CLOSE: return ds_close(handle, DS_RELEASE);
	case POLL: return ds_poll(handle);
	case READ: return ds_read(handle, reply, 256 << 10);
	default: return ds_write(handle, body, len);
	}
}

static int write_all(const void *p, size_t n) { return fwrite(p, 1, n, stdout) == n; }

static int answer(int op, const uint8_t *id, uint64_t result) {
	uint32_t code = DS_CODE(result), n = DS_N(result), len = 0;
	if (code == DS_TRUNCATED) {
		code = DS_OK;
		n = ds_taken(reply, sizeof reply);
	} else if (code >= DS_CANCELLED && code <= DS_UNAUTHENTICATED) {
		len = ds_taken(reply, sizeof reply);
	}
	if (code == DS_OK && (op == CALL || op == RECV || op == READ)) len = n;
	uint32_t words[] = {code, n, len}; // little endian, as the machine is
	putchar(0);
	return write_all(id, 4) && write_all(words, sizeof words) && write_all(reply, len) && fflush(stdout) == 0;
}

int main(void) {
	uint8_t head[17];
	while (fread(head, 1, sizeof head, stdin) == sizeof head) {
		uint32_t n[3];
		memcpy(n, head + 5, sizeof n); // handle, length of the method, length of the body
		if (n[1] > sizeof method || n[2] > sizeof body) return 2;
		if (fread(method, 1, n[1], stdin) != n[1] || fread(body, 1, n[2], stdin) != n[2]) return 2;
		if (!answer(head[4], head, act(head[4], n[0], n[1], n[2]))) return 2;
	}
	return 0;
}
