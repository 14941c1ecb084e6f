package schema

import (
	"fmt"
	"maps"
	"math/big"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// evaluation is one Validate.
type evaluation struct {
	found  []finding
	track  bool
	steps  int    // work left
	open   int    // checks that have not returned
	gaveUp string // why the result means nothing
}

// finding is a Problem whose pointer is not written yet: most findings are of alternatives and are forgotten.
type finding struct {
	place *place
	msg   string
}

// place is a value inside the value that is validated, nil = the value itself.
type place struct {
	up   *place
	name string
}

func (p *place) at(name string) *place { return &place{p, name} }

func (p *place) pointer() string {
	var parts []string
	for ; p != nil; p = p.up {
		parts = append(parts, "/"+escape(p.name))
	}
	slices.Reverse(parts)
	return strings.Join(parts, "")
}

// seen holds the members that a schema has looked at, for unevaluatedItems and unevaluatedProperties. A nil seen
// forgets.
type seen struct {
	names map[string]bool
	items map[int]bool
}

func (s *seen) name(n string) {
	if s == nil {
		return
	}
	if s.names == nil {
		s.names = make(map[string]bool)
	}
	s.names[n] = true
}

func (s *seen) item(i int) {
	if s == nil {
		return
	}
	if s.items == nil {
		s.items = make(map[int]bool)
	}
	s.items[i] = true
}

func (s *seen) add(o *seen) {
	for n := range o.names {
		s.name(n)
	}
	for i := range o.items {
		s.item(i)
	}
}

// spend takes n steps and reports whether they were left.
func (e *evaluation) spend(n int) bool {
	if e.steps -= n; e.steps < 0 && e.gaveUp == "" {
		e.gaveUp = "the schema takes too long to check"
	}
	return e.gaveUp == ""
}

func (e *evaluation) report(p *place, format string, args ...any) {
	if e.spend(4) && len(e.found) < MaxProblems {
		e.found = append(e.found, finding{p, fmt.Sprintf(format, args...)})
	}
}

// try runs f and gives back what it reported instead of keeping that.
func (e *evaluation) try(f func()) []finding {
	kept := e.found
	e.found = nil
	f()
	found := e.found
	e.found = kept
	return found
}

// fits reports whether v breaks nothing of n and notes in s what n looked at.
func (e *evaluation) fits(n *node, v any, p *place, s *seen) bool {
	return len(e.try(func() { e.check(n, v, p, s) })) == 0
}

// check reports how v at p breaks n and notes in s what n looked at.
func (e *evaluation) check(n *node, v any, p *place, s *seen) {
	if e.open >= maxNesting && e.gaveUp == "" {
		e.gaveUp = "value and schema are nested too deeply"
	}
	if !e.spend(1) {
		return
	}
	e.open++
	defer func() { e.open-- }()
	if n.never {
		e.report(p, "is not allowed")
		return
	}
	if list, ok := v.([]string); ok {
		v = elements(list)
	}
	before := len(e.found)
	var own *seen
	if e.track {
		own = new(seen)
	}
	k := kindOf(v)
	e.scalar(n, v, k, p)
	e.combined(n, v, k, p, own)
	switch v := v.(type) {
	case []any:
		e.array(n, v, p, own)
		if len(e.found) == before {
			e.unevaluatedItems(n, v, p, own)
		}
	case map[string]any:
		e.object(n, v, p, own)
		if len(e.found) == before {
			e.unevaluatedProperties(n, v, p, own)
		}
	}
	if s != nil && own != nil && e.spend(len(own.names)+len(own.items)) {
		s.add(own)
	}
}

func (e *evaluation) scalar(n *node, v any, k kind, p *place) {
	if !slices.Contains(typeNames, k.name) {
		e.report(p, "is %s", k.name)
		return
	}
	if n.types != nil && !slices.ContainsFunc(n.types, k.is) {
		e.report(p, "want %s, got %s", strings.Join(n.types, " or "), k.name)
		return // what follows would say the same again
	}
	e.constant(n.allow, v, p)
	e.constant(n.only, v, p)
	if k.number != nil {
		e.number(n, k.number, p)
	}
	if text, ok := v.(string); ok {
		e.text(n, text, p)
	}
}

func (e *evaluation) constant(a *allowed, v any, p *place) {
	if a != nil && !a.set[e.canonical(v)] {
		e.report(p, "want %s", a.text)
	}
}

func (e *evaluation) canonical(v any) string {
	var b strings.Builder
	canonical(&b, v)
	e.spend(b.Len() / 16)
	return b.String()
}

func (e *evaluation) number(n *node, r *big.Rat, p *place) {
	if n.minimum != nil && r.Cmp(n.minimum) < 0 {
		e.report(p, "is below the minimum %s", decimal(n.minimum))
	}
	if n.maximum != nil && r.Cmp(n.maximum) > 0 {
		e.report(p, "is above the maximum %s", decimal(n.maximum))
	}
	if n.above != nil && r.Cmp(n.above) <= 0 {
		e.report(p, "want a number above %s", decimal(n.above))
	}
	if n.below != nil && r.Cmp(n.below) >= 0 {
		e.report(p, "want a number below %s", decimal(n.below))
	}
	if n.multipleOf != nil && !new(big.Rat).Quo(r, n.multipleOf).IsInt() {
		e.report(p, "want a multiple of %s", decimal(n.multipleOf))
	}
}

func decimal(r *big.Rat) string {
	if r.IsInt() && len(r.Num().String()) <= 20 {
		return r.Num().String()
	}
	f, _ := r.Float64()
	return strconv.FormatFloat(f, 'g', -1, 64)
}

func (e *evaluation) text(n *node, text string, p *place) {
	if n.minLength != nil || n.maxLength != nil {
		e.bounds(utf8.RuneCountInString(text), n.minLength, n.maxLength, "character", p)
	}
	if n.pattern != nil && !e.matches(n.pattern, text) {
		e.report(p, "does not match the pattern %q", clip(n.pattern.text, 200))
	}
}

func (e *evaluation) matches(re *pattern, text string) bool {
	return e.spend(1+re.size*len(text)/64) && re.MatchString(text)
}

func (e *evaluation) bounds(n int, least, most *int, noun string, p *place) {
	if least != nil && n < *least {
		e.report(p, "want at least %s, got %d", plural(*least, noun), n)
	}
	if most != nil && n > *most {
		e.report(p, "want at most %s, got %d", plural(*most, noun), n)
	}
}

func plural(n int, noun string) string {
	switch {
	case n == 1:
		return "1 " + noun
	case noun == "property":
		return strconv.Itoa(n) + " properties"
	}
	return strconv.Itoa(n) + " " + noun + "s"
}

// combined checks the schemas that apply to the same value.
func (e *evaluation) combined(n *node, v any, k kind, p *place, own *seen) {
	if n.ref != nil {
		e.check(n.ref, v, p, own)
	}
	for _, sub := range n.allOf {
		e.check(sub, v, p, own)
	}
	if n.anyOf != nil {
		e.alternatives(n.anyOf, v, k, p, own, false)
	}
	if n.oneOf != nil {
		e.alternatives(n.oneOf, v, k, p, own, true)
	}
	if n.not != nil && e.fits(n.not, v, p, nil) {
		e.report(p, "matches a form that is excluded")
	}
	if n.when != nil {
		e.conditional(n, v, p, own)
	}
	if m, ok := v.(map[string]any); ok {
		e.dependent(n, m, p, own)
	}
}

func (e *evaluation) conditional(n *node, v any, p *place, own *seen) {
	var s seen
	next := n.other
	if e.fits(n.when, v, p, &s) {
		own.add(&s)
		next = n.then
	}
	if next != nil {
		e.check(next, v, p, own)
	}
}

func (e *evaluation) dependent(n *node, m map[string]any, p *place, own *seen) {
	if !e.spend(len(n.dependentRequired) + len(n.dependentSchemas)) {
		return
	}
	for _, name := range slices.Sorted(maps.Keys(n.dependentRequired)) {
		if _, has := m[name]; has {
			e.required(n.dependentRequired[name], m, p, fmt.Sprintf(", %q needs it", clip(name, 100)))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(n.dependentSchemas)) {
		if _, has := m[name]; has {
			e.check(n.dependentSchemas[name], m, p, own)
		}
	}
}

// alternatives is anyOf and, if one is set, oneOf.
func (e *evaluation) alternatives(subs []*node, v any, k kind, p *place, own *seen, one bool) {
	var failed [][]finding
	fit := 0
	for _, sub := range subs {
		var s seen
		found := e.try(func() { e.check(sub, v, p, &s) })
		if len(found) > 0 {
			failed = append(failed, found)
			continue
		}
		fit++
		own.add(&s)
		if !e.track && (!one || fit > 1) {
			break
		}
	}
	switch {
	case fit > 1 && one:
		e.report(p, "fits more than one of %d alternatives, want exactly one", len(subs))
	case fit == 0:
		e.noAlternative(subs, failed, k, p)
	}
}

// noAlternative says the most useful thing about a value that fits none of subs: the types that are wanted, or
// what is wrong inside if only one alternative looks like the value.
func (e *evaluation) noAlternative(subs []*node, failed [][]finding, k kind, p *place) {
	var types []string
	for _, sub := range subs {
		if len(sub.types) == 0 || slices.ContainsFunc(sub.types, k.is) {
			types = nil
			break
		}
		types = append(types, sub.types...)
	}
	if types != nil {
		slices.Sort(types)
		e.report(p, "want %s, got %s", strings.Join(slices.Compact(types), " or "), k.name)
		return
	}
	if len(subs) > 1 {
		failed = slices.DeleteFunc(failed, func(found []finding) bool {
			return slices.ContainsFunc(found, func(f finding) bool { return f.place == p })
		})
	}
	if len(failed) == 1 {
		for _, f := range failed[0] {
			e.report(f.place, "%s", f.msg)
		}
		return
	}
	e.report(p, "fits none of %d alternatives", len(subs))
}

func (e *evaluation) array(n *node, list []any, p *place, own *seen) {
	if !e.spend(len(list)) {
		return
	}
	e.bounds(len(list), n.minItems, n.maxItems, "item", p)
	for i, v := range list {
		sub := n.items
		if i < len(n.prefixItems) {
			sub = n.prefixItems[i]
		}
		if sub != nil {
			e.check(sub, v, p.at(strconv.Itoa(i)), nil)
			own.item(i)
		}
	}
	if n.unique {
		e.unique(list, p)
	}
	if n.contains != nil {
		e.contains(n, list, p, own)
	}
}

func (e *evaluation) unique(list []any, p *place) {
	first := make(map[string]int, len(list))
	for i, v := range list {
		text := e.canonical(v)
		if j, double := first[text]; double {
			e.report(p.at(strconv.Itoa(i)), "is the same as item %d", j)
			continue
		}
		first[text] = i
	}
}

func (e *evaluation) contains(n *node, list []any, p *place, own *seen) {
	fit, least := 0, 1
	if n.minContains != nil {
		least = *n.minContains
	}
	for i, v := range list {
		if e.fits(n.contains, v, p.at(strconv.Itoa(i)), nil) {
			fit++
			own.item(i)
		}
	}
	e.bounds(fit, &least, n.maxContains, "fitting item", p)
}

func (e *evaluation) unevaluatedItems(n *node, list []any, p *place, own *seen) {
	if n.unevaluatedItems == nil || !e.spend(len(list)) {
		return
	}
	for i, v := range list {
		if !own.items[i] {
			e.check(n.unevaluatedItems, v, p.at(strconv.Itoa(i)), nil)
			own.item(i)
		}
	}
}

func (e *evaluation) object(n *node, m map[string]any, p *place, own *seen) {
	if !e.spend(len(m)) {
		return
	}
	e.bounds(len(m), n.minProperties, n.maxProperties, "property", p)
	e.required(n.required, m, p, "")
	if n.properties == nil && n.patternProperties == nil && n.additionalProperties == nil && n.propertyNames == nil {
		return
	}
	for _, name := range slices.Sorted(maps.Keys(m)) {
		e.member(n, name, m[name], p.at(name), own)
	}
}

func (e *evaluation) required(names []string, m map[string]any, p *place, why string) {
	if !e.spend(len(names)) {
		return
	}
	for _, name := range names {
		if _, has := m[name]; !has {
			e.report(p, "property %q is missing%s", clip(name, 100), why)
		}
	}
}

func (e *evaluation) member(n *node, name string, v any, p *place, own *seen) {
	if n.propertyNames != nil {
		for _, f := range e.try(func() { e.check(n.propertyNames, name, p, nil) }) {
			e.report(p, "the name of this property: %s", f.msg)
		}
	}
	declared := false
	if sub := n.properties[name]; sub != nil {
		e.check(sub, v, p, nil)
		declared = true
	}
	for _, pp := range n.patternProperties {
		if e.matches(pp.pattern, name) {
			e.check(pp.node, v, p, nil)
			declared = true
		}
	}
	if !declared && n.additionalProperties != nil {
		e.other(n.additionalProperties, v, p)
		declared = true
	}
	if declared {
		own.name(name)
	}
}

// other checks a property that is declared nowhere.
func (e *evaluation) other(n *node, v any, p *place) {
	if n.never {
		e.report(p, "unknown property")
		return
	}
	e.check(n, v, p, nil)
}

func (e *evaluation) unevaluatedProperties(n *node, m map[string]any, p *place, own *seen) {
	if n.unevaluatedProperties == nil || !e.spend(len(m)) {
		return
	}
	for _, name := range slices.Sorted(maps.Keys(m)) {
		if !own.names[name] {
			e.other(n.unevaluatedProperties, m[name], p.at(name))
			own.name(name)
		}
	}
}
