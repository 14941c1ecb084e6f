package schema

import (
	"strings"
	"testing"
)

// keywordCases has one value that is valid and one that is not for each keyword, and what is said of the latter:
// its pointer, a space and the message, for each problem.
var keywordCases = []struct {
	name, schema, good, bad string
	want                    []string
}{
	{"false", `{"properties": {"a": false}}`, `{}`, `{"a": 1}`, []string{`/a is not allowed`}},
	{"true", `{"properties": {"a": true}, "required": ["b"]}`, `{"a": 1, "b": 1}`, `{}`, []string{` property "b" is missing`}},
	{"type", `{"type": ["string", "null"]}`, `null`, `1`, []string{` want string or null, got integer`}},
	{"type number", `{"type": "number"}`, `1`, `"1"`, []string{` want number, got string`}},
	{"type integer", `{"type": "integer"}`, `1e2`, `true`, []string{` want integer, got boolean`}},
	{"enum", `{"enum": [1, {"a": [true, "x"]}]}`, `{"a": [true, "x"]}`, `{"a": ["x", true]}`, []string{` want one of 1, {"a":[true,"x"]}`}},
	{"enum number", `{"enum": [1, 1.0]}`, `1.00`, `true`, []string{` want 1`}},
	{"enum false is not 0", `{"enum": [false]}`, `false`, `0`, []string{` want false`}},
	{"const null", `{"const": null}`, `null`, `0`, []string{` want null`}},
	{"const text", `{"const": "\u001b<"}`, `"\u001b<"`, `"1"`, []string{` want "\u001b<"`}},
	{"minimum", `{"minimum": 0.5}`, `0.5`, `0.4`, []string{` is below the minimum 0.5`}},
	{"maximum", `{"maximum": 1e30}`, `1e30`, `1.1e30`, []string{` is above the maximum 1e+30`}},
	{"exclusiveMinimum", `{"exclusiveMinimum": 0}`, `0.001`, `0`, []string{` want a number above 0`}},
	{"exclusiveMaximum", `{"exclusiveMaximum": 0}`, `-1`, `0`, []string{` want a number below 0`}},
	{"multipleOf", `{"multipleOf": 0.01}`, `19.99`, `19.999`, []string{` want a multiple of 0.01`}},
	{"minLength", `{"minLength": 2}`, `"éé"`, `"é"`, []string{` want at least 2 characters, got 1`}},
	{"maxLength", `{"maxLength": 1}`, `"💩"`, `"ab"`, []string{` want at most 1 character, got 2`}},
	{"pattern", `{"pattern": "^a+$"}`, `"aa"`, `"baa"`, []string{` does not match the pattern "^a+$"`}},
	{"keywords of other types", `{"minLength": 9, "minimum": 9, "minItems": 9, "minProperties": 1}`, `true`, `{}`, []string{` want at least 1 property, got 0`}},

	{"items", `{"items": {"type": "string"}}`, `["a"]`, `["a", 1, "b", 2]`, []string{`/1 want string, got integer`, `/3 want string, got integer`}},
	{"prefixItems", `{"prefixItems": [{"type": "string"}], "items": false}`, `["a"]`, `[1, 2]`, []string{`/0 want string, got integer`, `/1 is not allowed`}},
	{"prefixItems short", `{"prefixItems": [{}, {"type": "null"}]}`, `[1]`, `[1, 2, 3]`, []string{`/1 want null, got integer`}},
	{"minItems maxItems", `{"minItems": 1, "maxItems": 2.0}`, `[1, 2]`, `[1, 2, 3]`, []string{` want at most 2 items, got 3`}},
	{"uniqueItems", `{"uniqueItems": true}`, `[1, "1", true, [1], {"a": 1}]`, `[{"a": 1, "b": 2}, 3, {"b": 2.0, "a": 1}]`, []string{`/2 is the same as item 0`}},
	{"uniqueItems off", `{"uniqueItems": false, "maxItems": 2}`, `[1, 1]`, `[1, 1, 1]`, []string{` want at most 2 items, got 3`}},
	{"contains", `{"contains": {"const": 1}}`, `[0, 1]`, `[0]`, []string{` want at least 1 fitting item, got 0`}},
	{"contains bounds", `{"contains": {"const": 1}, "minContains": 0, "maxContains": 1}`, `[]`, `[1, 1]`, []string{` want at most 1 fitting item, got 2`}},
	{
		"unevaluatedItems", `{"prefixItems": [true], "anyOf": [{"contains": {"const": 1}}, {"prefixItems": [true, {"const": 2}]}], "unevaluatedItems": false}`,
		`[0, 2, 1]`, `[0, 2, 3]`,
		[]string{`/2 is not allowed`},
	},

	{"properties", `{"properties": {"a/b": {"properties": {"~": {"type": "null"}}}}}`, `{"a/b": {"~": null}}`, `{"a/b": {"~": 1}}`, []string{`/a~1b/~0 want null, got integer`}},
	{
		"additionalProperties", `{"properties": {"a": {}}, "patternProperties": {"^x": {}}, "additionalProperties": {"type": "null"}}`,
		`{"a": 1, "x1": 1, "b": null}`, `{"b": 1}`,
		[]string{`/b want null, got integer`},
	},
	{"additionalProperties off", `{"properties": {"a": {}}, "additionalProperties": false}`, `{"a": 1}`, `{"b": 1, "c": 2}`, []string{`/b unknown property`, `/c unknown property`}},
	{
		"patternProperties", `{"properties": {"ab": {"minimum": 1}}, "patternProperties": {"a": {"maximum": 2}, "b": {"type": "integer"}}}`,
		`{"ab": 2}`, `{"ab": 2.5}`,
		[]string{`/ab is above the maximum 2`, `/ab want integer, got number`},
	},
	{"propertyNames", `{"propertyNames": {"maxLength": 1}}`, `{"a": 1}`, `{"ab": 1}`, []string{`/ab the name of this property: want at most 1 character, got 2`}},
	{"required", `{"required": ["a", "b", "c"]}`, `{"a": 1, "b": 1, "c": null}`, `{"b": 1}`, []string{` property "a" is missing`, ` property "c" is missing`}},
	{"minProperties maxProperties", `{"minProperties": 1, "maxProperties": 1}`, `{"a": 1}`, `{"a": 1, "b": 1}`, []string{` want at most 1 property, got 2`}},
	{"maxProperties", `{"maxProperties": 2}`, `{}`, `{"a": 1, "b": 1, "c": 1}`, []string{` want at most 2 properties, got 3`}},
	{"dependentRequired", `{"dependentRequired": {"a": ["b"]}}`, `{"c": 1}`, `{"a": 1}`, []string{` property "b" is missing, "a" needs it`}},
	{"dependentSchemas", `{"dependentSchemas": {"a": {"properties": {"b": {"type": "null"}}}}}`, `{"b": 1}`, `{"a": 1, "b": 1}`, []string{`/b want null, got integer`}},
	{
		"unevaluatedProperties", `{"allOf": [{"properties": {"a": {}}}], "if": {"required": ["a"]}, "then": {"properties": {"b": {}}}, "unevaluatedProperties": false}`,
		`{"a": 1, "b": 1}`, `{"b": 1}`,
		[]string{`/b unknown property`},
	},
	{
		"unevaluatedProperties by ref", `{"$ref": "#/$defs/x", "unevaluatedProperties": {"type": "null"}, "$defs": {"x": {"properties": {"a": {}}}}}`,
		`{"a": 1, "b": null}`, `{"a": 1, "b": 1}`,
		[]string{`/b want null, got integer`},
	},

	{"allOf", `{"allOf": [{"minimum": 1}, {"multipleOf": 2}]}`, `2`, `-1`, []string{` is below the minimum 1`, ` want a multiple of 2`}},
	{"anyOf types", `{"anyOf": [{"type": "string"}, {"type": "integer"}, {"type": "string"}]}`, `1`, `null`, []string{` want integer or string, got null`}},
	{"anyOf one looks right", `{"anyOf": [{"type": "string"}, {"properties": {"a": {"type": "null"}}}]}`, `"x"`, `{"a": 1}`, []string{`/a want null, got integer`}},
	{"anyOf none", `{"anyOf": [{"minimum": 5}, {"maximum": 1}]}`, `1`, `3`, []string{` fits none of 2 alternatives`}},
	{"anyOf single", `{"anyOf": [{"minimum": 5}]}`, `5`, `3`, []string{` is below the minimum 5`}},
	{"oneOf", `{"oneOf": [{"minimum": 2}, {"maximum": 3}]}`, `1`, `2`, []string{` fits more than one of 2 alternatives, want exactly one`}},
	{"not", `{"not": {"type": "null"}}`, `1`, `null`, []string{` matches a form that is excluded`}},
	{"if then", `{"if": {"required": ["a"]}, "then": {"required": ["b"]}}`, `{}`, `{"a": 1}`, []string{` property "b" is missing`}},
	{"if else", `{"if": {"required": ["a"]}, "else": {"required": ["b"]}}`, `{"a": 1}`, `{}`, []string{` property "b" is missing`}},
	{"then without if", `{"then": false, "minimum": 1}`, `1`, `0`, []string{` is below the minimum 1`}},

	{"ref to the root", `{"properties": {"a": {"$ref": "#"}}, "additionalProperties": false}`, `{"a": {"a": {}}}`, `{"a": {"b": 1}}`, []string{`/a/b unknown property`}},
	{
		"ref by $id", `{"$id": "https://example.com/x#", "properties": {"a": {"$ref": "https://example.com/x#/$defs/n"}, "b": {"$ref": "https://example.com/x"}}, "$defs": {"n": {"type": "null"}}}`,
		`{"a": null, "b": {}}`, `{"a": 1, "b": {"a": 2}}`,
		[]string{`/a want null, got integer`, `/b/a want null, got integer`},
	},
	{"ref with escapes", `{"$ref": "#/$defs/a~1b%25~0", "$defs": {"a/b%~": {"type": "null"}}}`, `null`, `1`, []string{` want null, got integer`}},
	{"ref beside keywords", `{"$ref": "#/$defs/a", "minimum": 2, "$defs": {"a": {"maximum": 3}}}`, `2`, `1`, []string{` is below the minimum 2`}},
	{"ref into a list", `{"items": {"$ref": "#/anyOf/0"}, "anyOf": [{"type": ["array", "null"]}, true]}`, `[null]`, `[1]`, []string{`/0 want array or null, got integer`}},
	{"ref to another place", `{"$ref": "#/x-forms/0", "x-forms": [{"$ref": "#/x-forms/1"}, {"type": "null"}]}`, `null`, `1`, []string{` want null, got integer`}},
	{"anchor", `{"$ref": "#here", "$defs": {"a": {"$anchor": "here", "type": "null"}}}`, `null`, `1`, []string{` want null, got integer`}},
	{"format is an annotation", `{"format": "ipv4", "maxLength": 3}`, `"abc"`, `"abcd"`, []string{` want at most 3 characters, got 4`}},

	{
		"draft-07 items", `{` + draft07 + `, "items": [{"type": "null"}], "additionalItems": {"type": "string"}}`, `[null, "x"]`, `[1, 2]`,
		[]string{`/0 want null, got integer`, `/1 want string, got integer`},
	},
	{"draft-07 no items", `{` + draft07 + `, "items": [], "additionalItems": false}`, `[]`, `[1]`, []string{`/0 is not allowed`}},
	{"draft-07 items of one form", `{` + draft07 + `, "items": {"type": "null"}, "additionalItems": false}`, `[null]`, `[1]`, []string{`/0 want null, got integer`}},
	{
		"draft-07 dependencies", `{` + draft07 + `, "dependencies": {"a": ["b"], "c": {"maxProperties": 1}}}`, `{"a": 1, "b": 1}`, `{"a": 1, "c": 1}`,
		[]string{` property "b" is missing, "a" needs it`, ` want at most 1 property, got 2`},
	},
	{
		"draft-07 ref alone", `{` + draft07 + `, "properties": {"a": {"$ref": "#/definitions/x", "type": "null"}}, "definitions": {"x": {"type": "string"}}}`,
		`{"a": "x"}`, `{"a": null}`,
		[]string{`/a want string, got null`},
	},
	{
		"draft-07 $id", `{` + draft07 + `, "properties": {"a": {"$ref": "#here"}, "b": {"$id": "#/properties/b"}}, "definitions": {"x": {"$id": "#here", "type": "null"}}}`,
		`{"a": null}`, `{"a": 1}`,
		[]string{`/a want null, got integer`},
	},
	{
		"draft-07 later keywords", `{` + draft07 + `, "unevaluatedProperties": false, "prefixItems": [false], "minContains": 5, "dependentRequired": {"a": ["b"]}, "maxProperties": 1}`,
		`{"a": 1}`, `{"a": 1, "c": 1}`,
		[]string{` want at most 1 property, got 2`},
	},
}

func TestKeywords(t *testing.T) {
	for _, c := range keywordCases {
		t.Run(c.name, func(t *testing.T) {
			s := compiled(t, c.schema)
			if got := s.Validate(value(t, c.good)); got != nil {
				t.Errorf("%s: %q", c.good, got)
			}
			var got []string
			for _, p := range s.Validate(value(t, c.bad)) {
				got = append(got, p.Pointer+" "+p.Msg)
			}
			if strings.Join(got, "\n") != strings.Join(c.want, "\n") {
				t.Errorf("%s\ngot  %q\nwant %q", c.bad, got, c.want)
			}
		})
	}
}

func TestCompileErrors(t *testing.T) {
	for text, want := range map[string]string{
		`{`:                                      "schema is not JSON",
		`{} {}`:                                  "something follows",
		`[]`:                                     "not an object",
		`{"type": 5}`:                            "the schema: type: want a list of strings, got integer",
		`{"type": null}`:                         "type: want the name of a type, got null",
		`{"type": "strin"}`:                      `type: "strin" is not one of null, boolean`,
		`{"type": []}`:                           "want 1 to 7 names",
		`{"properties": {"a": 5}}`:               "/properties/a: want a schema, got integer",
		`{"properties": 5}`:                      "properties: want an object, got integer",
		`{"allOf": []}`:                          "allOf: want a list of schemas",
		`{"enum": 5}`:                            "enum: want a list, got integer",
		`{"minLength": -1}`:                      "minLength: want a whole number from 0",
		`{"minLength": 1.5}`:                     "minLength: want a whole number from 0, got number",
		`{"minimum": "1"}`:                       "minimum: want a number, got string",
		`{"multipleOf": 0}`:                      "multipleOf: want a number above 0",
		`{"required": "a"}`:                      "required: want a list of strings, got string",
		`{"required": [1]}`:                      "required: want a list of strings, got integer",
		`{"uniqueItems": 1}`:                     "uniqueItems: want true or false",
		`{"items": [{}]}`:                        "/items: want a schema, got array",
		`{"pattern": 5}`:                         "pattern: want a string",
		`{"pattern": "("}`:                       "missing closing )",
		`{"pattern": "(?=a)"}`:                   "invalid or unsupported",
		`{"patternProperties": {"(": {}}}`:       "missing closing )",
		`{"$ref": 5}`:                            "$ref: want a string",
		`{"$ref": "https://example.com/x.json"}`: "must not refer to other files or URLs",
		`{"$ref": "file:///etc/passwd"}`:         "must not refer to other files or URLs",
		`{"$ref": "other.json#/a"}`:              "must not refer to other files or URLs",
		`{"$id": "https://example.com/x", "$ref": "https://example.com/xy#/a"}`: "must not refer",
		`{"$ref": "#/$defs/none"}`:                                        `nothing in the schema is at "#/$defs/none"`,
		`{"$ref": "#none"}`:                                               "nothing in the schema",
		`{"$ref": "#/allOf/1", "allOf": [{}]}`:                            "nothing in the schema",
		`{"$ref": "#/%zz"}`:                                               "invalid URL escape",
		`{"$ref": "#/title", "title": "x"}`:                               "/title: want a schema, got string",
		`{"$schema": "https://example.com/meta"}`:                         "want draft 2020-12 or draft-07",
		`{"$schema": 7}`:                                                  "$schema: want a string",
		`{"$dynamicRef": "#a"}`:                                           "$dynamicRef is not supported",
		`{"$defs": {"a": {"$id": "https://example.com/a"}}}`:              "/$defs/a: $id is supported only at the top",
		`{"minimum": 1e999999999}`:                                        "too large",
		`{"minimum": 1e-999999999}`:                                       "too large",
		`{"x": ` + strings.Repeat("1", 500) + `}`:                         "too large",
		`{"title": "` + strings.Repeat("x", MaxBytes) + `"}`:              "at most 65536",
		strings.Repeat(`{"not":`, 70) + "{}" + strings.Repeat("}", 70):    "deeper than 64",
		`{"properties": {"` + strings.Repeat("x", maxPointer) + `": {}}}`: "names are too long",
		`{"dependentRequired": {"a": 1}}`:                                 "dependentRequired: want a list of strings",
		`{` + draft07 + `, "dependencies": {"a": 1}}`:                     "/dependencies/a: want a schema",
		`{` + draft07 + `, "definitions": {"a": {"$id": "x"}}}`:           "$id is supported only at the top",
	} {
		s, err := Compile("s.json", []byte(text))
		if err == nil || s != nil || !strings.HasPrefix(err.Error(), "s.json: ") || !strings.Contains(err.Error(), want) {
			t.Errorf("%.80s: got %v, want %q", text, err, want)
		}
	}
}
