package main

import (
	_ "embed" // the SDKs with the names of the schema in them
	"errors"
	"fmt"
	"regexp"
	"strconv"

	"google.golang.org/protobuf/reflect/protoreflect"
)

var (
	//go:embed ds.rs.in
	rustSDK string
	//go:embed ds.ts.in
	assemblyScriptSDK string
)

// schemaName is @Message.field@, which stands for the field's number, or @Service/Method@ for its full name.
var schemaName = regexp.MustCompile(`@(\w+)([./])(\w+)@`)

// expand writes text with numbers and names of the schema instead of schemaName; what the schema does not have
// is an error.
func expand(text string) func(protoreflect.FileDescriptor) ([]byte, error) {
	return func(f protoreflect.FileDescriptor) (out []byte, err error) {
		s := schemaName.ReplaceAllStringFunc(text, func(token string) string {
			m := schemaName.FindStringSubmatch(token)
			value, ok := lookup(f, m[1], m[2], m[3])
			if !ok {
				err = errors.Join(err, fmt.Errorf("the schema has no %s%s%s", m[1], m[2], m[3]))
			}
			return value
		})
		return []byte(s), err
	}
}

func lookup(f protoreflect.FileDescriptor, owner, kind, name string) (string, bool) {
	if kind == "/" {
		s := f.Services().ByName(protoreflect.Name(owner))
		if s == nil || s.Methods().ByName(protoreflect.Name(name)) == nil {
			return "", false
		}
		return "/" + string(s.FullName()) + "/" + name, true
	}
	m := f.Messages().ByName(protoreflect.Name(owner))
	if m == nil || m.Fields().ByName(protoreflect.Name(name)) == nil {
		return "", false
	}
	return strconv.Itoa(int(m.Fields().ByName(protoreflect.Name(name)).Number())), true
}
