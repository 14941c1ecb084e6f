// hello prints one line and needs nothing but WASI.
#include <stdio.h>

int main(void) {
	puts("hello from C");
	return 0;
}
