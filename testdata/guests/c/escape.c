// escape tries to leave a mount. `escape DIR BASE [one]` probes the guest directory DIR, whose host directory is
// BASE/in, with plain WASI calls, and prints a line "id|errno|text" for each probe. It knows the names that the
// test planted: BASE/outside with files w/ID, empty directories e/ID and an empty directory new; in DIR the files
// p_ID and links that lead out. With "one" only DIR/plain is granted, and probes of granted files use that.
//
// What is an escape is decided by the host: text that holds what lies outside, or anything changed there.
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <wasi/api.h>

enum {
	READ = 1 << 1,   // __WASI_RIGHTS_FD_READ
	WRITE = 1 << 6,  // __WASI_RIGHTS_FD_WRITE
	LISTING = 1 << 14,
	FOLLOW = 1,
	CREAT = 1, DIRECTORY = 2, EXCL = 4, TRUNC = 8,
	APPEND = 1,
	MTIM = 4,
	TIB = 40, // 1 << 40 bytes
};

__attribute__((import_module("wasi_snapshot_preview1"), import_name("path_open")))
int32_t raw_open(int32_t fd, int32_t dirflags, const char *path, int32_t len, int32_t oflags, int64_t base, int64_t inherit, int32_t fdflags, int32_t *out);

static const char *dir, *base;
static int one;
static int top = -1;         // the preopen that holds DIR
static char pre[512];        // DIR below it, "" or "a/b/"
static char text[256];
static char path[8][2048];
static int next_path;

// at is a name below DIR, seen from the preopen.
static const char *at(const char *rel) {
	char *p = path[next_path++ % 8];
	snprintf(p, sizeof path[0], "%s%s", pre, rel);
	return p;
}

static const char *join(const char *a, const char *b, const char *c) {
	char *p = path[next_path++ % 8];
	snprintf(p, sizeof path[0], "%s%s%s", a, b, c);
	return p;
}

static void say(const char *id, int e) {
	for (char *p = text; *p; p++)
		if (*p == '\n' || *p == '|' || *p == '\r') *p = ' ';
	printf("%s|%d|%s\n", id, e, text);
	text[0] = 0;
}

static int open_at(int fd, const char *name, int oflags, int64_t rights, int fdflags, int *out) {
	__wasi_fd_t got = 0;
	int e = __wasi_path_open(fd, FOLLOW, name, oflags, rights, rights, fdflags, &got);
	*out = (int)got;
	return e;
}

static void shut(int fd) { (void)!__wasi_fd_close(fd); }

static int put(int fd, const char *s) {
	__wasi_ciovec_t v = {(const uint8_t *)s, strlen(s)};
	__wasi_size_t n;
	return __wasi_fd_write(fd, &v, 1, &n);
}

// take keeps the beginning of a file as the text of the probe.
static int take(int fd) {
	__wasi_iovec_t v = {(uint8_t *)text, 100};
	__wasi_size_t n = 0;
	int e = __wasi_fd_read(fd, &v, 1, &n);
	text[e ? 0 : n] = 0;
	for (__wasi_size_t i = 0; !e && i < n; i++)
		if (text[i] == 0) text[i] = ' ';
	return e;
}

static int try_read(int fd, const char *name) {
	int f, e = open_at(fd, name, 0, READ, 0, &f);
	if (e) return e;
	e = take(f);
	shut(f);
	return e;
}

static int try_open(int fd, const char *name, int oflags, int64_t rights, int fdflags) {
	int f, e = open_at(fd, name, oflags, rights, fdflags, &f);
	if (!e) shut(f);
	return e;
}

static int try_write(int fd, const char *name, int oflags, int fdflags) {
	int f, e = open_at(fd, name, oflags, READ | WRITE, fdflags, &f);
	if (e) return e;
	e = put(f, "changed by the guest");
	shut(f);
	return e;
}

static int try_stat(int fd, const char *name, int flags) {
	__wasi_filestat_t st;
	int e = __wasi_path_filestat_get(fd, flags, name, &st);
	if (!e) snprintf(text, sizeof text, "type %d size %llu", st.filetype, (unsigned long long)(st.filetype == 3 ? 0 : st.size));
	return e;
}

static int try_list(int fd, const char *name) {
	static uint8_t buf[4096];
	int f, e = open_at(fd, name, DIRECTORY, LISTING | READ, 0, &f);
	if (e) return e;
	__wasi_size_t n = 0;
	e = __wasi_fd_readdir(f, buf, sizeof buf, 0, &n);
	shut(f);
	size_t len = 0;
	for (__wasi_size_t i = 0; !e && i + 24 <= n;) {
		uint32_t l;
		memcpy(&l, buf + i + 16, 4);
		if (i + 24 + l > n) break;
		if (!(l <= 2 && buf[i + 24] == '.') && len + l + 2 < 100) {
			memcpy(text + len, buf + i + 24, l);
			text[len + l] = ' ';
			len += l + 1;
		}
		i += 24 + l;
	}
	text[len] = 0;
	return e;
}

static int try_times(int fd, const char *name, int flags) { return __wasi_path_filestat_set_times(fd, flags, name, 0, 1000000000, MTIM); }

// form is a way to name something outside.
struct form {
	const char *name, *prefix;
	int kind; // 0 below DIR; 1 absolute; 2 from an opened directory; 3 below DIR, then the absolute base
};

static const struct form forms[] = {
	{"dotdot", "../outside/", 0},
	{"deepdot", "sub/../../outside/", 0},
	{"abs", "", 1},
	{"fddot", "../../outside/", 2},
	{"absdir", "l_abs_dir/", 0},
	{"reldir", "l_rel_dir/", 0},
	{"chain", "l_chain/", 0},
	{"selfup", "l_selfup/", 0},
	{"up", "l_up/outside/", 0},
	{"subup", "sub/l_out/", 0},
	{"root", "l_root", 3},
	{"proc", "l_proc_root", 3},
};

static int opened_sub = -1;

static const char *outside(const struct form *f, const char *kind, const char *id, int *fd) {
	const char *tail = join(kind, id, "");
	*fd = top;
	switch (f->kind) {
	case 1: return join(base, "/outside/", tail);
	case 2: *fd = opened_sub; return join(f->prefix, tail, "");
	case 3: return at(join(f->prefix, base, join("/outside/", tail, "")));
	}
	return at(join(f->prefix, tail, ""));
}

static void dir_forms(void) {
	static const char *ops[] = {"read", "stat", "list", "trunc", "write", "create", "unlink", "moveout", "movein", "hardlink", "symlink", "mkdir", "rmdir", "times"};
	for (size_t i = 0; i < sizeof forms / sizeof *forms; i++)
		for (size_t o = 0; o < sizeof ops / sizeof *ops; o++) {
			char id[64];
			int fd, e = 0;
			snprintf(id, sizeof id, "%s.%s", forms[i].name, ops[o]);
			const struct form *f = &forms[i];
			const char *w = outside(f, "w/", id, &fd);
			switch (o) {
			case 0: e = try_read(fd, w); break;
			case 1: e = try_stat(fd, w, FOLLOW); break;
			case 2: e = try_list(fd, outside(f, "d", "", &fd)); break;
			case 3: e = try_open(fd, w, TRUNC, READ, 0); break;
			case 4: e = try_write(fd, w, 0, 0); break;
			case 5: e = try_open(fd, outside(f, "new/", id, &fd), CREAT | EXCL, READ | WRITE, 0); break;
			case 6: e = __wasi_path_unlink_file(fd, w); break;
			case 7: e = __wasi_path_rename(top, at(join("p_", id, "")), fd, outside(f, "new/", id, &fd)); break;
			case 8: e = __wasi_path_rename(fd, w, top, at(join("got_", id, ""))); break;
			case 9: e = __wasi_path_link(fd, 0, w, top, at(join("got_", id, ""))); break;
			case 10: e = __wasi_path_symlink("plain", fd, outside(f, "new/", id, &fd)); break;
			case 11: e = __wasi_path_create_directory(fd, outside(f, "new/", id, &fd)); break;
			case 12: e = __wasi_path_remove_directory(fd, outside(f, "e/", id, &fd)); break;
			case 13: e = try_times(fd, w, FOLLOW); break;
			}
			say(id, e);
		}
}

// file_forms use links that lead to one file: la_ID absolute, lr_ID relative, lc_ID over another link.
static void file_forms(void) {
	static const char *names[][2] = {{"absfile", "la_"}, {"relfile", "lr_"}, {"chainfile", "lc_"}};
	static const char *ops[] = {"read", "stat", "trunc", "write", "append", "times", "timesnofollow", "hardlink", "create", "movelink"};
	for (size_t i = 0; i < sizeof names / sizeof *names; i++)
		for (size_t o = 0; o < sizeof ops / sizeof *ops; o++) {
			char id[64];
			int e = 0;
			snprintf(id, sizeof id, "%s.%s", names[i][0], ops[o]);
			const char *l = at(join(names[i][1], id, ""));
			switch (o) {
			case 0: e = try_read(top, l); break;
			case 1: e = try_stat(top, l, FOLLOW); break;
			case 2: e = try_open(top, l, TRUNC, READ, 0); break;
			case 3: e = try_write(top, l, 0, 0); break;
			case 4: e = try_write(top, l, 0, APPEND); break;
			case 5: e = try_times(top, l, FOLLOW); break;
			case 6: e = try_times(top, l, 0); break;
			case 7: e = __wasi_path_link(top, FOLLOW, l, top, at(join("got_", id, ""))); break;
			case 8: e = try_open(top, at(join("n", names[i][1] + 1, id)), CREAT, READ | WRITE, 0); break; // leads to nothing yet
			case 9: // under another name in another directory it might lead elsewhere
				e = __wasi_path_rename(top, l, top, at(join("sub/moved_", id, "")));
				if (!e) e = try_read(top, at(join("sub/moved_", id, "")));
				break;
			}
			say(id, e);
		}
}

// made_links are links that the guest makes itself and then uses.
static void made_links(void) {
	char to[1024];
	snprintf(to, sizeof to, "%s/outside/w/made.abs", base);
	say("made.abs", __wasi_path_symlink(to, top, at("g_abs")));
	say("made.abs.read", try_read(top, at("g_abs")));
	say("made.abs.write", try_write(top, at("g_abs"), 0, 0));
	say("made.abs.trunc", try_open(top, at("g_abs"), TRUNC, READ, 0));
	say("made.abs.unlink", __wasi_path_unlink_file(top, at("g_abs")));
	say("made.rel", __wasi_path_symlink("../outside/w/made.rel", top, at("g_rel")));
	say("made.rel.read", try_read(top, at("g_rel")));
	say("made.rel.write", try_write(top, at("g_rel"), 0, 0));
	say("made.rel.trunc", try_open(top, at("g_rel"), TRUNC, READ, 0));
	say("made.rel.rename", __wasi_path_rename(top, at("g_rel"), top, at("g_rel2")));
	say("made.rel.renamed", try_read(top, at("g_rel2")));
	say("made.dir", __wasi_path_symlink("../outside", top, at("g_dir")));
	say("made.dir.list", try_list(top, at("g_dir/d")));
	say("made.dir.read", try_read(top, at("g_dir/w/made.dir.read")));
	say("made.dir.write", try_write(top, at("g_dir/w/made.dir.write"), 0, 0));
	say("made.dir.create", try_open(top, at("g_dir/new/made.dir.create"), CREAT, READ | WRITE, 0));
	say("made.dir.unlink", __wasi_path_unlink_file(top, at("g_dir/w/made.dir.unlink")));
	say("made.dir.movein", __wasi_path_rename(top, at("g_dir/w/made.dir.movein"), top, at("got_made.dir.movein")));
	say("made.dir.hardlink", __wasi_path_link(top, 0, at("g_dir/w/made.dir.hardlink"), top, at("got_made.dir.hardlink")));
	say("made.inner", __wasi_path_symlink("sub/../../outside/w/made.inner", top, at("g_inner")));
	say("made.inner.read", try_read(top, at("g_inner")));
	// a link that is harmless where it is made and leads out of the mount from a higher directory
	say("made.shift", __wasi_path_symlink("../outside/w/made.shift", top, at("sub/g_shift")));
	say("made.shift.rename", __wasi_path_rename(top, at("sub/g_shift"), top, at("g_shift")));
	say("made.shift.read", try_read(top, at("g_shift")));
	say("made.dot", __wasi_path_symlink(".", top, at("g_dot")));
	say("made.dot.up", try_read(top, at("g_dot/../../outside/w/made.dot.up")));
	say("made.dot.chain", __wasi_path_symlink("g_dot/../../outside/w/made.dot.chain", top, at("g_chain")));
	say("made.dot.chain.read", try_read(top, at("g_chain")));
	say("made.proc", __wasi_path_symlink("/proc/self/environ", top, at("g_proc")));
	say("made.proc.read", try_read(top, at("g_proc")));
	say("made.overfile", __wasi_path_symlink("../outside/w/made.overfile", top, at("p_made.overfile")));
	say("made.hardlink", __wasi_path_link(top, 0, at("plain"), top, at("got_made.hardlink")));
}

// processes reads and changes the host process through links into /proc.
static void processes(void) {
	static char maps[65536];
	int f, e;
	say("proc.environ", try_read(top, at("l_environ")));
	say("proc.environ.abs", try_read(top, "/proc/self/environ"));
	say("proc.cmdline", try_read(top, at("l_proc_root/proc/self/cmdline")));
	say("proc.fd", try_list(top, at("l_proc_fd")));
	say("proc.cwd", try_list(top, at("l_proc_cwd")));
	uint64_t addr = 0;
	e = open_at(top, at("l_maps"), 0, READ, 0, &f);
	if (!e) {
		__wasi_iovec_t v = {(uint8_t *)maps, sizeof maps - 1};
		__wasi_size_t n = 0;
		e = __wasi_fd_read(f, &v, 1, &n);
		maps[n] = 0;
		char *rw = strstr(maps, " rw-p");
		if (rw) {
			while (rw > maps && rw[-1] != '\n') rw--;
			addr = strtoull(rw, NULL, 16);
			strcpy(text, "address of host memory");
		}
		shut(f);
	}
	say("proc.maps", e);
	uint8_t word[8] = {0};
	__wasi_size_t n = 0;
	e = open_at(top, at("l_mem"), 0, READ, 0, &f);
	if (!e) {
		__wasi_iovec_t v = {word, sizeof word};
		e = __wasi_fd_pread(f, &v, 1, addr, &n);
		shut(f);
		if (!e) strcpy(text, "host memory was read");
	}
	say("proc.mem.read", e);
	int had = !e;
	e = open_at(top, at("l_mem"), 0, READ | WRITE, 0, &f);
	if (!e) {
		__wasi_ciovec_t v = {word, sizeof word}; // the same bytes, so that the host survives
		e = had ? __wasi_fd_pwrite(f, &v, 1, addr, &n) : 0;
		shut(f);
		if (!e) strcpy(text, "host memory was written");
	}
	say("proc.mem.write", e);
}

// kinds of files that no guest opens.
static void special(void) {
	say("fifo.read", try_read(top, at("fifo")));
	say("fifo.write", try_write(top, at("fifo"), 0, 0));
	say("fifo.stat", try_stat(top, at("fifo"), 0));
	say("socket.read", try_read(top, at("socket")));
	say("zero.read", try_read(top, at("l_zero")));
	say("null.write", try_write(top, at("l_null"), 0, 0));
	say("device.read", try_read(top, at("l_root/dev/zero")));
	say("loop.read", try_read(top, at("l_loop")));
	say("loop.stat", try_stat(top, at("l_loop"), FOLLOW));
	char to[256];
	static const char *links[][2] = {{"readlink.abs", "l_abs_dir"}, {"readlink.root", "l_root"}, {"readlink.proc", "l_environ"}, {"readlink.rel", "l_rel_dir"}, {"readlink.file", "plain"}};
	for (size_t i = 0; i < sizeof links / sizeof *links; i++) {
		__wasi_size_t n = 0;
		int e = __wasi_path_readlink(top, at(links[i][1]), (uint8_t *)to, sizeof to - 1, &n);
		if (!e) snprintf(text, sizeof text, "%.*s", (int)n, to);
		say(links[i][0], e);
	}
}

static void names(void) {
	static char longest[5001], part[301];
	memset(longest, 'a', 5000);
	for (int i = 1; i < 5000; i += 2) longest[i] = '/';
	longest[4999] = 'a';
	memset(part, 'b', 300);
	int f;
	say("name.empty", try_open(top, "", 0, READ, 0));
	say("name.long", try_open(top, longest, 0, READ, 0));
	say("name.longpart", try_open(top, at(part), 0, READ, 0));
	say("name.longpart.create", try_open(top, at(part), CREAT, READ | WRITE, 0));
	const char *nul = at("plain");
	say("name.nul", raw_open(top, FOLLOW, join(nul, "", ""), (int)strlen(nul) + 1, 0, READ, READ, 0, &f));
	say("name.slash", try_open(top, at("plain/"), 0, READ, 0));
	say("name.dotfile", try_open(top, at("plain/../plain"), 0, READ, 0));
	say("name.back", try_read(top, at("..\\outside\\w\\name.back")));
	say("name.percent", try_read(top, at("%2e%2e/outside/w/name.percent")));
	say("name.slashes", try_read(top, at("..//outside///w//name.slashes")));
	say("name.case", try_read(top, at("PLAIN")));
	say("name.upcase", try_read(top, at("L_ABS_DIR/w/name.upcase")));
	say("name.many", try_read(top, at("../../../../../../../../../../../../../etc/passwd")));
	say("name.etc", try_read(top, "/etc/passwd"));
	say("name.etc.link", try_read(top, at("l_root/etc/passwd")));
	say("name.args", try_read(top, "/args/7/file"));
}

// descriptors: numbers that were not given, or not for this.
static void descriptors(void) {
	__wasi_prestat_t st;
	int f = 0;
	say("fd.none", try_open(77, at("plain"), 0, READ, 0));
	say("fd.negative", try_open(-1, at("plain"), 0, READ, 0));
	say("fd.stdout", try_open(1, "plain", 0, READ, 0));
	say("fd.prestat", __wasi_fd_prestat_get(77, &st));
	int e = open_at(top, at("plain"), 0, READ, 0, &f);
	if (!e) {
		e = try_open(f, "../plain", 0, READ, 0);
		shut(f);
	}
	say("fd.file", e);
	say("fd.renumber", __wasi_fd_renumber(opened_sub, top));
	say("fd.sub.up", opened_sub < 0 ? 0 : try_read(opened_sub, ".."));
	int many = 0;
	e = 0;
	static int fds[20000];
	while (many < 20000 && !(e = open_at(top, pre[0] ? at(".") : ".", DIRECTORY, LISTING | READ, 0, &fds[many]))) many++;
	for (int i = 0; i < many; i++) shut(fds[i]);
	snprintf(text, sizeof text, "%s", many > 4096 ? "more than 4096 open files" : "");
	say("fd.flood", e);
}

// big asks for a TiB without having a disk.
static void big(const char *file) {
	int f;
	int e = open_at(top, file, CREAT, READ | WRITE, 0, &f);
	if (e) {
		say("sparse.truncate", e);
		say("sparse.allocate", e);
		say("sparse.pwrite", e);
		say("sparse.seek", e);
		return;
	}
	__wasi_ciovec_t v = {(const uint8_t *)"x", 1};
	__wasi_size_t n;
	__wasi_filesize_t pos;
	say("sparse.truncate", __wasi_fd_filestat_set_size(f, 1ULL << TIB));
	say("sparse.allocate", __wasi_fd_allocate(f, 0, 1ULL << TIB));
	say("sparse.pwrite", __wasi_fd_pwrite(f, &v, 1, 1ULL << TIB, &n));
	(void)!__wasi_fd_seek(f, 1LL << TIB, 0, &pos);
	say("sparse.seek", put(f, "x"));
	shut(f);
}

static const char *own(const char *id) { return at(one ? "plain" : join("p_", id, "")); }

static int with(const char *name, int (*do_it)(int fd)) {
	int f, e = open_at(top, name, 0, READ, 0, &f);
	if (e) return e;
	e = do_it(f);
	shut(f);
	return e;
}

static int do_size(int fd) { return __wasi_fd_filestat_set_size(fd, 0); }
static int do_allocate(int fd) { return __wasi_fd_allocate(fd, 0, 100000); }
static int do_write(int fd) { return put(fd, "changed"); }
static int do_times(int fd) { return __wasi_fd_filestat_set_times(fd, 0, 1000000000, MTIM); }
static int do_pwrite(int fd) {
	__wasi_ciovec_t v = {(const uint8_t *)"x", 1};
	__wasi_size_t n;
	return __wasi_fd_pwrite(fd, &v, 1, 0, &n);
}
static int do_append(int fd) {
	int e = __wasi_fd_fdstat_set_flags(fd, APPEND);
	return e ? e : put(fd, "changed");
}

// own_files are operations on what is granted: allowed on a writable mount, without effect on a read-only one,
// whatever rights the guest claims.
static void own_files(void) {
	say("own.read", try_read(top, own("own.read")));
	say("own.trunc", try_open(top, own("own.trunc"), TRUNC, READ, 0));
	say("own.creat", try_open(top, at(one ? "plain" : "c_own.creat"), CREAT, READ, 0));
	say("own.creattrunc", try_open(top, own("own.creattrunc"), CREAT | TRUNC, READ, 0));
	say("own.creatnone", try_open(top, at("c_own.creatnone"), CREAT, 0, 0));
	say("own.truncnone", try_open(top, own("own.truncnone"), TRUNC, 0, 0));
	say("own.write", try_write(top, own("own.write"), 0, 0));
	say("own.writeonly", try_open(top, own("own.writeonly"), 0, WRITE, 0));
	say("own.append", try_open(top, own("own.append"), 0, READ, APPEND));
	say("own.appendwrite", try_write(top, own("own.appendwrite"), 0, APPEND));
	say("own.fd.size", with(own("own.fd.size"), do_size));
	say("own.fd.allocate", with(own("own.fd.allocate"), do_allocate));
	say("own.fd.write", with(own("own.fd.write"), do_write));
	say("own.fd.pwrite", with(own("own.fd.pwrite"), do_pwrite));
	say("own.fd.append", with(own("own.fd.append"), do_append));
	say("own.fd.times", with(own("own.fd.times"), do_times));
	say("own.times", try_times(top, own("own.times"), FOLLOW));
	say("own.timesnofollow", try_times(top, own("own.timesnofollow"), 0));
	say("own.excl", try_open(top, own("own.excl"), CREAT | EXCL, READ, 0));
	say("own.mkdir", __wasi_path_create_directory(top, at("c_own.mkdir")));
	say("own.rmdir", __wasi_path_remove_directory(top, at("empty")));
	say("own.dirwrite", try_open(top, at("sub"), 0, WRITE, 0));
	say("own.dirtrunc", try_open(top, at("sub"), TRUNC, READ, 0));
	say("own.sub.read", try_read(top, at("sub/file")));
	say("own.sub.list", try_list(top, at("sub/only")));
	say("own.sub.create", try_open(top, at("sub/c_own.sub.create"), CREAT, READ | WRITE, 0));
	say("own.sub.movein", __wasi_path_rename(top, at("sub/p_own.sub.movein"), top, at("got_own.sub.movein")));
	say("own.rename", __wasi_path_rename(top, own("own.rename"), top, at(one ? "plain" : "c_own.rename")));
	say("own.renameover", __wasi_path_rename(top, own("own.renameover"), top, at("p_own.victim")));
	say("own.unlink", one ? 0 : __wasi_path_unlink_file(top, own("own.unlink")));
	say("own.linked.read", try_read(top, at("l_in")));
	say("own.linked.write", try_write(top, at("l_in_w"), 0, 0));
	say("own.linked.dir", try_read(top, at("l_in_dir/file")));
}

// roots are operations on DIR itself and on what surrounds it.
static void roots(void) {
	say("mount.unlink", __wasi_path_unlink_file(top, at(".")));
	say("mount.rmdir", __wasi_path_remove_directory(top, at(".")));
	say("mount.mkdir", __wasi_path_create_directory(top, at(".")));
	say("mount.rename", __wasi_path_rename(top, at("."), top, at("c_mount")));
	say("mount.over", __wasi_path_rename(top, at("sub"), top, at(".")));
	say("mount.trunc", try_open(top, at("."), TRUNC, READ, 0));
	say("mount.write", try_open(top, at("."), 0, WRITE, 0));
	say("mount.parent", try_list(top, at("..")));
	say("mount.create", try_open(top, at("../c_mount.create"), CREAT, READ | WRITE, 0));
	say("mount.mkdirup", __wasi_path_create_directory(top, at("../c_mount.mkdirup")));
}

// hidden is what lies in a granted tree and is kept from the guest.
static void hidden(void) {
	say("hidden.read", try_read(top, at("private/key")));
	say("hidden.list", try_list(top, at("private")));
	say("hidden.stat", try_stat(top, at("private/key"), 0));
	say("hidden.dotdot", try_read(top, at("sub/../private/key")));
	say("hidden.case", try_read(top, at("PRIVATE/key")));
	say("hidden.link", try_read(top, at("l_priv/key")));
	say("hidden.linkfile", try_read(top, at("l_privkey")));
	say("hidden.linklist", try_list(top, at("l_priv")));
	say("hidden.rename", __wasi_path_rename(top, at("private"), top, at("got_private")));
	say("hidden.renamed", try_read(top, at("got_private/key")));
	say("hidden.movein", __wasi_path_rename(top, at("private/key"), top, at("got_key")));
	say("hidden.over", __wasi_path_rename(top, at("p_hidden.over"), top, at("private/key")));
	say("hidden.unlink", __wasi_path_unlink_file(top, at("private/key")));
	say("hidden.create", try_open(top, at("private/c_hidden.create"), CREAT, READ | WRITE, 0));
	say("hidden.hardlink", __wasi_path_link(top, 0, at("private/key"), top, at("got_hidden.hardlink")));
	say("hidden.mklink", __wasi_path_symlink("private/key", top, at("g_priv")));
	say("hidden.mklink.read", try_read(top, at("g_priv")));
}

// other_mounts goes through /tmp, which every guest has.
static void other_mounts(void) {
	int tmp = -1;
	for (int fd = 3; fd < 16; fd++) {
		char name[64];
		__wasi_prestat_t st;
		if (__wasi_fd_prestat_get(fd, &st) || st.u.dir.pr_name_len >= sizeof name) continue;
		if (__wasi_fd_prestat_dir_name(fd, (uint8_t *)name, st.u.dir.pr_name_len)) continue;
		if (st.u.dir.pr_name_len == 4 && !memcmp(name, "/tmp", 4)) tmp = fd;
	}
	say("tmp.link", __wasi_path_symlink("../in/plain", tmp, "x_link"));
	say("tmp.up", try_read(tmp, "../outside/w/tmp.up"));
	say("tmp.movelink", __wasi_path_symlink("w", tmp, "x_move") ? 99 : __wasi_path_rename(tmp, "x_move", top, at("c_tmp.movelink")));
	say("tmp.hardlink", __wasi_path_link(top, 0, at("plain"), tmp, "x_hard"));
	say("tmp.move", __wasi_path_rename(top, at("p_tmp.move"), tmp, "x_moved"));
}

static void preopens(void) {
	size_t len = 0;
	for (int fd = 3; fd < 16; fd++) {
		char name[64];
		__wasi_prestat_t st;
		if (__wasi_fd_prestat_get(fd, &st) || st.u.dir.pr_name_len >= sizeof name) continue;
		if (__wasi_fd_prestat_dir_name(fd, (uint8_t *)name, st.u.dir.pr_name_len)) continue;
		name[st.u.dir.pr_name_len] = 0;
		len += (size_t)snprintf(text + len, sizeof text - len, "%s ", name);
		size_t n = strlen(name);
		if (top < 0 && !strncmp(dir, name, n) && (dir[n] == 0 || dir[n] == '/')) {
			top = fd;
			if (dir[n]) snprintf(pre, sizeof pre, "%s/", dir + n + 1);
		}
	}
	say("preopens", top < 0);
}

int main(int argc, char **argv) {
	if (argc < 3) return 2;
	dir = argv[1];
	base = argv[2];
	one = argc > 3 && !strcmp(argv[3], "one");
	preopens();
	if (top < 0) return 3;
	open_at(top, at("sub"), DIRECTORY, LISTING | READ, 0, &opened_sub);
	dir_forms();
	file_forms();
	made_links();
	processes();
	special();
	names();
	descriptors();
	hidden();
	other_mounts();
	own_files();
	roots();
	big(at(one ? "plain" : "c_big"));
	puts("end|0|");
	return 0;
}
