package goplugin_test

import "syscall"

const term = syscall.SIGTERM
