package yamlfile

import (
	"bytes"
	"slices"
	"strings"
)

// Append returns data with value as the last item of the list at path, which is made if it is not there, and every
// other byte kept. The value is written in flow style. The error is ErrManual as for Set.
func Append(name string, data []byte, l Limits, value any, path ...string) ([]byte, error) {
	root, err := Parse(name, data, l)
	if err != nil {
		return nil, err
	}
	list := root.At(path...)
	if list == nil || list.Kind == Null || list.Kind == List && len(list.Items) == 0 {
		return Set(name, data, l, []any{value}, path...)
	}
	text, err := flowText(value)
	if err != nil {
		return nil, err
	}
	return edit(name, data, l, func(e *editor, root *Node) bool { return e.appendItem(root.At(path...), text) }, func(tree any) any {
		parsed, err := Parse(name, []byte(text), l)
		if err != nil {
			return nil
		}
		items, _ := list.Value().([]any)
		return setIn(tree, append(items, parsed.Value()), path)
	})
}

// RemoveItem returns data without item i of the list at path, and every other byte kept.
func RemoveItem(name string, data []byte, l Limits, i int, path ...string) ([]byte, error) {
	root, err := Parse(name, data, l)
	if err != nil {
		return nil, err
	}
	list := root.At(path...)
	if list == nil || list.Kind != List || i < 0 || i >= len(list.Items) {
		return data, nil
	}
	if len(list.Items) == 1 {
		return Set(name, data, l, []any{}, path...)
	}
	return edit(name, data, l, func(e *editor, root *Node) bool { return e.removeItem(root.At(path...), i) }, func(tree any) any {
		items, _ := list.Value().([]any)
		return setIn(tree, slices.Delete(items, i, i+1), path)
	})
}

func (e *editor) appendItem(list *Node, text string) bool {
	if list.Kind != List || list.alias {
		return false
	}
	end, ok := e.end(list)
	if !ok {
		return false
	}
	if list.flow {
		last, ok := e.end(list.Items[len(list.Items)-1])
		return ok && e.splice(last, last, ", "+text)
	}
	dash, ok := e.dash(list.Items[len(list.Items)-1])
	if !ok {
		return false
	}
	at := e.lineEnd(end)
	return e.splice(at, at, e.eol+strings.Repeat(" ", dash)+"- "+text)
}

func (e *editor) removeItem(list *Node, i int) bool {
	if list.alias {
		return false
	}
	item := list.Items[i]
	end, ok := e.end(item)
	if !ok {
		return false
	}
	if list.flow {
		if i+1 < len(list.Items) {
			return e.splice(e.at(item), e.at(list.Items[i+1]), "")
		}
		before, ok := e.end(list.Items[i-1])
		return ok && e.splice(before, end, "")
	}
	if _, ok := e.dash(item); !ok {
		return false
	}
	end = e.lineEnd(end)
	if end < len(e.data) {
		end += bytes.IndexByte(e.data[end:], '\n') + 1
	}
	return e.splice(e.lines[item.Line-1], end, "")
}

// dash is the column, from 0, of the dash before an item of a block list, which must begin its line.
func (e *editor) dash(item *Node) (int, bool) {
	line := e.data[e.lines[item.Line-1]:e.at(item)]
	spaces := len(line) - len(bytes.TrimLeft(line, " "))
	return spaces, strings.TrimSpace(string(line)) == "-"
}
