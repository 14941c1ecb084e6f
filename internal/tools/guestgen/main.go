// Command guestgen writes what guests need of ds.host.v1 without a protobuf runtime: Go messages without
// reflection (hostabi/hostv1lite), a C header (hostabi/abi/ds_v1.h) and the SDKs for Rust and AssemblyScript
// (hostabi/abi/ds.rs, ds.ts). It takes the root of the module, reads
// hostabi/hostv1/host.proto there and writes the same bytes for the same schema.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/bufbuild/protocompile"
	"google.golang.org/protobuf/reflect/protoreflect"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: guestgen ROOT")
		os.Exit(2)
	}
	if err := run(context.Background(), filepath.Join(os.Args[1], "hostabi")); err != nil {
		fmt.Fprintln(os.Stderr, "guestgen:", err)
		os.Exit(1)
	}
}

// run generates every output below dir, the directory hostabi.
func run(ctx context.Context, dir string) error {
	f, err := schema(ctx, dir)
	if err != nil {
		return err
	}
	for _, out := range []struct {
		name  string
		write func(protoreflect.FileDescriptor) ([]byte, error)
	}{
		{"hostv1lite/messages_gen.go", goMessages},
		{"hostv1lite/methods_gen.go", goMethods},
		{"abi/ds_v1.h", cNames},
		{"abi/ds.rs", expand(rustSDK)},
		{"abi/ds.ts", expand(assemblyScriptSDK)},
	} {
		text, err := out.write(f)
		if err != nil {
			return fmt.Errorf("%s: %w", out.name, err)
		}
		if err := os.WriteFile(filepath.Join(dir, out.name), text, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// schema reads host.proto below dir.
func schema(ctx context.Context, dir string) (protoreflect.FileDescriptor, error) {
	c := protocompile.Compiler{
		Resolver:       &protocompile.SourceResolver{ImportPaths: []string{filepath.Join(dir, "hostv1")}},
		SourceInfoMode: protocompile.SourceInfoStandard,
	}
	files, err := c.Compile(ctx, "host.proto")
	if err != nil {
		return nil, err
	}
	return files[0], check(files[0])
}

// check refuses what the outputs cannot express, so that a schema change fails here and not in a guest.
func check(f protoreflect.FileDescriptor) (err error) {
	refuse := func(d protoreflect.Descriptor, what string) {
		err = errors.Join(err, fmt.Errorf("%s: %s", d.FullName(), what))
	}
	if f.Enums().Len() > 0 || f.Extensions().Len() > 0 {
		refuse(f, "enums and extensions are not supported")
	}
	for m := range messages(f) {
		if m.Enums().Len() > 0 {
			refuse(m, "enums are not supported")
		}
		for i := range m.Messages().Len() {
			if !m.Messages().Get(i).IsMapEntry() {
				refuse(m.Messages().Get(i), "nested messages are not supported")
			}
		}
		for f := range fields(m) {
			switch {
			case f.IsMap():
				if f.MapKey().Kind() != protoreflect.StringKind || f.MapValue().Kind() != protoreflect.StringKind {
					refuse(f, "only map<string, string> is supported")
				}
			case f.IsList() && f.Kind() != protoreflect.StringKind && f.Kind() != protoreflect.MessageKind:
				refuse(f, "only strings and messages may be repeated")
			case inOneof(f) && f.Kind() != protoreflect.BytesKind && f.Kind() != protoreflect.MessageKind:
				refuse(f, "only bytes and messages may be in a oneof")
			case f.HasOptionalKeyword() && !number(f.Kind()):
				refuse(f, "only numbers may be optional")
			case f.Kind() != protoreflect.MessageKind && scalars[f.Kind()].goType == "":
				refuse(f, "kind "+f.Kind().String()+" is not supported")
			}
		}
	}
	return err
}
