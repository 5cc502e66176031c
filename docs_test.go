package gravbus_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode"

	"github.com/gravbus/gravbus"
)

// The documents say what the code does. These tests hold them to it: programs run and print what is shown, fragments parse, names and
// constants exist, links lead somewhere.

// docsFiles are the documents, by path.
func docsFiles(t *testing.T) map[string]string {
	t.Helper()
	paths, err := filepath.Glob("docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{}
	for _, path := range append(paths, "README.md", "CHANGELOG.md", "CONTRIBUTING.md") {
		files[path] = docsRead(t, path)
	}
	return files
}

func docsRead(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// docsBlock is a fenced block of a document.
type docsBlock struct {
	name, lang, text string
	after            string // what stands between the block before and this one
}

var docsFence = regexp.MustCompile("(?ms)^```(\\w*)\n(.*?)^```$")

func docsBlocks(name, text string) (blocks []docsBlock) {
	end := 0
	for _, m := range docsFence.FindAllStringSubmatchIndex(text, -1) {
		line := 1 + strings.Count(text[:m[0]], "\n")
		blocks = append(blocks, docsBlock{fmt.Sprintf("%s:%d", name, line), text[m[2]:m[3]], text[m[4]:m[5]], text[end:m[0]]})
		end = m[1]
	}
	return blocks
}

// TestDocsPrograms builds every program of the documents in a module of its own, as a reader would, runs it, and compares what it prints
// with the text block that follows it directly.
func TestDocsPrograms(t *testing.T) {
	if testing.Short() {
		t.Skip("builds programs")
	}
	found := 0
	for name, text := range docsFiles(t) {
		blocks := docsBlocks(name, text)
		for i, b := range blocks {
			if b.lang != "go" || !strings.Contains(b.text, "package main") {
				continue
			}
			found++
			t.Run(b.name, func(t *testing.T) {
				dir := docsModule(t, b.text)
				docsGo(t, dir, "vet", ".")
				got := docsGo(t, dir, "run", ".")
				if i+1 < len(blocks) && blocks[i+1].lang == "text" && strings.TrimSpace(blocks[i+1].after) == "" {
					if want := blocks[i+1].text; got != want {
						t.Errorf("it prints\n%s\nand not\n%s", got, want)
					}
				}
			})
		}
	}
	if found == 0 {
		t.Error("no program found")
	}
}

// docsModule returns a folder with a module that consists of the program.
func docsModule(t *testing.T, program string) string {
	t.Helper()
	root, err := filepath.Abs(".")
	if err != nil {
		t.Fatal(err)
	}
	mod := regexp.MustCompile(`(?m)^module .*$`).ReplaceAllString(docsRead(t, "go.mod"), "module docs")
	mod += fmt.Sprintf("\nrequire github.com/gravbus/gravbus v0.0.0\nreplace github.com/gravbus/gravbus => %s\n", strconv.Quote(root))
	dir := t.TempDir()
	for name, text := range map[string]string{"main.go": program, "go.mod": mod, "go.sum": docsRead(t, "go.sum")} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// docsGo runs the go command in dir and returns its standard output.
func docsGo(t *testing.T, dir string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOWORK=off", "GOFLAGS=-mod=mod")
	var out, errs strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		t.Fatalf("go %s: %v\n%s%s", strings.Join(args, " "), err, out.String(), errs.String())
	}
	return out.String()
}

// TestDocsFragments parses every block of Go, as a file, as declarations or as statements, and looks up the names that it takes from this package
// and those of the mesh.
func TestDocsFragments(t *testing.T) {
	apis := map[string]map[string]bool{"gravbus": docsAPI(t, "*.go")}
	for name, folder := range docsPackages {
		apis[name] = docsAPI(t, folder+"/*.go")
	}
	for name, text := range docsFiles(t) {
		for _, b := range docsBlocks(name, text) {
			if b.lang != "go" {
				continue
			}
			file, err := docsParse(b.text)
			if err != nil {
				t.Errorf("%s: %v", b.name, err)
				continue
			}
			ast.Inspect(file, func(n ast.Node) bool {
				if sel, ok := n.(*ast.SelectorExpr); ok {
					if x, ok := sel.X.(*ast.Ident); ok && apis[x.Name] != nil && !apis[x.Name][sel.Sel.Name] {
						t.Errorf("%s: there is no %s.%s", b.name, x.Name, sel.Sel.Name)
					}
				}
				return true
			})
		}
	}
}

func docsParse(src string) (file *ast.File, err error) {
	for _, form := range []string{"%s", "package p\n%s", "package p\nfunc _() {\n%s\n}"} {
		if file, err = parser.ParseFile(token.NewFileSet(), "", fmt.Sprintf(form, src), 0); err == nil {
			return file, nil
		}
	}
	return nil, err
}

// docsPackages are the folders of packages that the documents speak of, by name.
var docsPackages = map[string]string{
	"transport": "transport", "websocket": "transport/websocket", "memory": "transport/memory",
	"discovery": "discovery", "mdns": "discovery/mdns", "static": "discovery/static",
}

// docsAPI returns what the package in these files exports: Name for what is at the top, Type.Name for methods and fields.
func docsAPI(t *testing.T, pattern string) map[string]bool {
	t.Helper()
	api := map[string]bool{}
	for _, file := range docsSources(t, pattern) {
		for _, decl := range file.Decls {
			switch d := decl.(type) {
			case *ast.FuncDecl:
				if d.Recv == nil {
					api[d.Name.Name] = true
				} else {
					api[docsReceiver(d.Recv.List[0].Type)+"."+d.Name.Name] = true
				}
			case *ast.GenDecl:
				for _, spec := range d.Specs {
					switch s := spec.(type) {
					case *ast.ValueSpec:
						for _, id := range s.Names {
							api[id.Name] = true
						}
					case *ast.TypeSpec:
						api[s.Name.Name] = true
						for _, member := range docsMembers(s.Type) {
							api[s.Name.Name+"."+member] = true
						}
					}
				}
			}
		}
	}
	maps.DeleteFunc(api, func(name string, _ bool) bool {
		return slices.ContainsFunc(strings.Split(name, "."), func(part string) bool { return !ast.IsExported(part) })
	})
	return api
}

// docsSources parses the files that match the pattern, tests excepted.
func docsSources(t *testing.T, pattern string) (files []*ast.File) {
	t.Helper()
	paths, err := filepath.Glob(pattern)
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range paths {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, file)
	}
	return files
}

func docsReceiver(expr ast.Expr) string {
	switch x := expr.(type) {
	case *ast.StarExpr:
		return docsReceiver(x.X)
	case *ast.IndexExpr:
		return docsReceiver(x.X)
	case *ast.Ident:
		return x.Name
	}
	return "_"
}

func docsMembers(expr ast.Expr) (names []string) {
	var fields *ast.FieldList
	switch x := expr.(type) {
	case *ast.StructType:
		fields = x.Fields
	case *ast.InterfaceType:
		fields = x.Methods
	default:
		return nil
	}
	for _, f := range fields.List {
		for _, id := range f.Names {
			names = append(names, id.Name)
		}
	}
	return names
}

var (
	docsCode = regexp.MustCompile("`([^`\n]+)`")
	docsName = regexp.MustCompile(`^(?:gravbus\.)?([A-Z]\w*(?:\.[A-Z]\w*)?)(?:\(.*\))?$`)
	docsOf   = regexp.MustCompile(`^([a-z]+)\.([A-Z]\w*(?:\.[A-Z]\w*)?)(?:\(.*\))?$`)
)

// TestDocsNames looks up every name that is set as code. A member may stand without its type.
func TestDocsNames(t *testing.T) {
	known := docsAPI(t, "*.go")
	of := map[string]map[string]bool{}
	for name, folder := range docsPackages {
		of[name] = docsAPI(t, folder+"/*.go")
	}
	for name := range maps.Clone(known) {
		if _, member, ok := strings.Cut(name, "."); ok {
			known[member] = true
		}
	}
	for name, text := range docsFiles(t) {
		for _, m := range docsCode.FindAllStringSubmatch(docsFence.ReplaceAllString(text, ""), -1) {
			if n := docsOf.FindStringSubmatch(m[1]); n != nil && of[n[1]] != nil && !of[n[1]][n[2]] {
				t.Errorf("%s: there is no %s", name, m[1])
			}
		}
		switch name {
		case "docs/ARCHITECTURE.md", "docs/MIGRATING.md", "CONTRIBUTING.md": // they speak of internals, of Grav and of the Makefile
			continue
		}
		for _, m := range docsCode.FindAllStringSubmatch(docsFence.ReplaceAllString(text, ""), -1) {
			if n := docsName.FindStringSubmatch(m[1]); n != nil && !known[n[1]] && !docsForeign(n[1]) {
				t.Errorf("%s: there is no %s", name, m[1])
			}
		}
	}
}

// docsForeign reports whether a name is no part of the API: a test or benchmark, or a type parameter.
func docsForeign(name string) bool {
	return strings.HasPrefix(name, "Test") || strings.HasPrefix(name, "Benchmark") || len(name) == 1
}

var (
	docsLink    = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	docsHeading = regexp.MustCompile(`(?m)^#+ (.*)$`)
)

// TestDocsLinks follows the links from one document to another, with the heading they lead to.
func TestDocsLinks(t *testing.T) {
	files := docsFiles(t)
	for name, text := range files {
		for _, m := range docsLink.FindAllStringSubmatch(docsFence.ReplaceAllString(text, ""), -1) {
			if strings.Contains(m[1], "://") {
				continue
			}
			path, anchor, _ := strings.Cut(m[1], "#")
			target := name
			if path != "" {
				target = filepath.Join(filepath.Dir(name), path)
			}
			if _, err := os.Stat(target); err != nil {
				t.Errorf("%s: link to %s: %v", name, m[1], err)
			} else if anchor != "" && !slices.Contains(docsAnchors(files[target]), anchor) {
				t.Errorf("%s: link to %s: no such heading", name, m[1])
			}
		}
	}
}

// A row after a blank line is no row, unless it is the first of a table.
func TestDocsTables(t *testing.T) {
	for name, text := range docsFiles(t) {
		lines := strings.Split(text, "\n")
		for i, line := range lines {
			if !strings.HasPrefix(line, "|") || i > 0 && strings.HasPrefix(lines[i-1], "|") {
				continue
			}
			if i+1 == len(lines) || !strings.HasPrefix(lines[i+1], "|-") {
				t.Errorf("%s:%d: a row without a table: %s", name, i+1, line)
			}
		}
	}
}

func docsAnchors(text string) (anchors []string) {
	for _, m := range docsHeading.FindAllStringSubmatch(docsFence.ReplaceAllString(text, ""), -1) {
		anchors = append(anchors, strings.Map(func(r rune) rune {
			switch {
			case r == ' ':
				return '-'
			case unicode.IsLetter(r), unicode.IsDigit(r), r == '-', r == '_':
				return unicode.ToLower(r)
			}
			return -1
		}, m[1]))
	}
	return anchors
}

// TestDocsConstants compares the table of constants with the code, in both directions.
func TestDocsConstants(t *testing.T) {
	values := map[string]any{
		"DefaultMailbox":        gravbus.DefaultMailbox,
		"DefaultMailboxCap":     gravbus.DefaultMailboxCap,
		"DefaultStallLimit":     gravbus.DefaultStallLimit,
		"DefaultMaxFailures":    gravbus.DefaultMaxFailures,
		"DefaultMaxRetries":     gravbus.DefaultMaxRetries,
		"MaxReplies":            gravbus.MaxReplies,
		"MaxParkedReplies":      gravbus.MaxParkedReplies,
		"MaxParkedBytes":        gravbus.MaxParkedBytes,
		"MaxUnclaimed":          gravbus.MaxUnclaimed,
		"DefaultReplay":         gravbus.DefaultReplay,
		"DefaultReplayBytes":    gravbus.DefaultReplayBytes,
		"DefaultMaxMessageSize": gravbus.DefaultMaxMessageSize,
		"DefaultMesh":           gravbus.DefaultMesh,
		"MinMeshKey":            gravbus.MinMeshKey,
		"DefaultLinkMessages":   gravbus.DefaultLinkMessages,
		"DefaultLinkBytes":      gravbus.DefaultLinkBytes,
		"DefaultWindowMessages": gravbus.DefaultWindowMessages,
		"DefaultWindowBytes":    gravbus.DefaultWindowBytes,
		"DefaultDeadAfter":      gravbus.DefaultDeadAfter,
		"DefaultResumeFor":      gravbus.DefaultResumeFor,
		"DefaultHandshakeTime":  gravbus.DefaultHandshakeTime,
	}
	text := docsRead(t, "docs/GUARANTEES.md")
	for name, value := range values {
		if row := fmt.Sprintf("| `%s` | %v |", name, value); !strings.Contains(text, row) {
			t.Errorf("docs/GUARANTEES.md has no row %s", row)
		}
	}
	for _, name := range docsConstants(t, "*.go") {
		if _, ok := values[name]; !ok && (strings.HasPrefix(name, "Default") || strings.HasPrefix(name, "Max")) {
			t.Errorf("the constant %s is not in the table", name)
		}
	}
	// These are inside; the text names their values.
	text = strings.Join(strings.Fields(text), " ")
	for _, c := range []struct{ files, name, value, text string }{
		{"internal/mailbox/*.go", "MaxBatch", "256", "at most 256"},
		{"internal/mailbox/*.go", "leaverAge", "5 * time.Minute", "more than five minutes"},
		{"internal/route/*.go", "MaxLen", "255", "at most 255 bytes"},
		{"*.go", "messageOverhead", "144", "its data and 144 bytes"},
	} {
		if got := docsConstant(t, c.files, c.name); got != c.value || !strings.Contains(text, c.text) {
			t.Errorf("%s is %q: docs/GUARANTEES.md is to say %q", c.name, got, c.text)
		}
	}
}

// docsEachConst calls f for each constant of the files.
func docsEachConst(t *testing.T, pattern string, f func(name string, value ast.Expr)) {
	t.Helper()
	for _, file := range docsSources(t, pattern) {
		for _, decl := range file.Decls {
			d, ok := decl.(*ast.GenDecl)
			if !ok || d.Tok != token.CONST {
				continue
			}
			for _, spec := range d.Specs {
				s := spec.(*ast.ValueSpec)
				for i, id := range s.Names {
					if i < len(s.Values) {
						f(id.Name, s.Values[i])
					}
				}
			}
		}
	}
}

func docsConstants(t *testing.T, pattern string) (names []string) {
	docsEachConst(t, pattern, func(name string, _ ast.Expr) { names = append(names, name) })
	return names
}

// docsConstant returns the source of a constant's value.
func docsConstant(t *testing.T, pattern, name string) (source string) {
	docsEachConst(t, pattern, func(n string, value ast.Expr) {
		if n == name {
			source = docsSource(value)
		}
	})
	return source
}

func docsSource(expr ast.Expr) string {
	switch x := expr.(type) {
	case *ast.BasicLit:
		return x.Value
	case *ast.SelectorExpr:
		return docsSource(x.X) + "." + x.Sel.Name
	case *ast.Ident:
		return x.Name
	case *ast.BinaryExpr:
		return docsSource(x.X) + " " + x.Op.String() + " " + docsSource(x.Y)
	}
	return "?"
}

// TestDocsTests looks for the tests that GUARANTEES refers to.
func TestDocsTests(t *testing.T) {
	paths, err := filepath.Glob("*_test.go")
	if err != nil {
		t.Fatal(err)
	}
	var tests []string
	for _, path := range paths {
		for _, m := range regexp.MustCompile(`(?m)^func (Test\w+)\(`).FindAllStringSubmatch(docsRead(t, path), -1) {
			tests = append(tests, m[1])
		}
	}
	text := docsRead(t, "docs/GUARANTEES.md")
	named := regexp.MustCompile("`(Test\\w+)…`").FindAllStringSubmatch(text, -1)
	for _, m := range named {
		// TestGuarantee1 is not TestGuarantee10.
		if !slices.ContainsFunc(tests, func(test string) bool {
			rest, ok := strings.CutPrefix(test, m[1])
			return ok && (rest == "" || !unicode.IsDigit(rune(rest[0])))
		}) {
			t.Errorf("docs/GUARANTEES.md refers to %s…: there is no such test", m[1])
		}
	}
	headings := regexp.MustCompile(`(?m)^## .*$`).FindAllStringIndex(text, -1)
	for i, at := range headings {
		end := len(text)
		if i+1 < len(headings) {
			end = headings[i+1][0]
		}
		heading, section := text[at[0]:at[1]], text[at[1]:end]
		if numbered := unicode.IsDigit(rune(heading[3])); numbered != strings.Contains(section, "Shown by `Test") {
			t.Errorf("docs/GUARANTEES.md: the section %q is to say what shows it, if it has a number", heading)
		}
	}
}

// docsGrav is every name that Grav exports, as its documentation has them.
const docsGrav = `
MsgTypeDefault TransportMsgTypeHandshake TransportMsgTypeUser
ErrConnectionClosed ErrNodeUUIDMismatch ErrMsgNotWanted ErrNoReceipt ErrTransportNotConfigured ErrWaitTimeout
ErrBelongsToMismatch ErrNodeWithdrawn ErrTunnelNotEstablished
Grav Grav.NodeUUID New Grav.Connect Grav.ConnectWithReplay Grav.ConnectEndpoint Grav.ConnectBridgeTopic Grav.Tunnel Grav.Withdraw Grav.Stop
OptionsModifier UseLogger UseTransport UseDiscovery UseEndpoint UseBelongsTo UseInterests
Message Message.UUID Message.ParentID Message.ReplyTo Message.SetReplyTo Message.Type Message.Timestamp Message.Data Message.UnmarshalData
Message.Marshal Message.Unmarshal NewMsg NewMsgWithParentID NewMsgReplyTo MsgFromBytes MsgFromRequest
Pod Pod.Send Pod.ReplyTo Pod.On Pod.OnType Pod.WaitOn Pod.WaitUntil Pod.FilterType Pod.FilterUUID Pod.Disconnect
MsgReceipt MsgReceipt.UUID MsgReceipt.WaitOn MsgReceipt.WaitUntil MsgReceipt.OnReply
Timeout TimeoutFunc MsgFunc MsgChan
MsgBuffer NewMsgBuffer MsgBuffer.Push MsgBuffer.Next MsgBuffer.Iter
Transport Transport.Setup Transport.CreateConnection
Connection Connection.Start Connection.Send Connection.CanReplace Connection.DoOutgoingHandshake Connection.DoIncomingHandshake Connection.Close
Discovery Discovery.Start DiscoveryOpts DiscoveryFunc`

// TestDocsMigrating checks that every name of Grav has its row in MIGRATING, once, and that what is to be written instead exists.
func TestDocsMigrating(t *testing.T) {
	api := docsAPI(t, "*.go")
	rows := map[string]bool{}
	for line := range strings.Lines(docsRead(t, "docs/MIGRATING.md")) {
		cells := strings.Split(strings.TrimSpace(line), "|")
		if len(cells) != 7 || !strings.Contains(cells[1], "`") {
			continue
		}
		old := strings.Trim(cells[1], " `")
		if rows[old] {
			t.Errorf("%s has two rows", old)
		}
		rows[old] = true
		names := docsCode.FindAllStringSubmatch(cells[2], -1)
		for _, m := range names {
			if !api[m[1]] {
				t.Errorf("%s: there is no %s", old, m[1])
			}
		}
		for _, m := range regexp.MustCompile(`gravbus\.([A-Z]\w*)`).FindAllStringSubmatch(cells[5], -1) {
			if !api[m[1]] {
				t.Errorf("%s: there is no gravbus.%s", old, m[1])
			}
		}
		switch what := strings.TrimSpace(cells[3]); what {
		case "kept", "renamed", "replaced":
			if len(names) == 0 || strings.TrimSpace(cells[4]) == "" || strings.TrimSpace(cells[5]) == "" {
				t.Errorf("%s is %s: by what, and how?", old, what)
			}
			if same := len(names) > 0 && docsMember(names[0][1]) == docsMember(old); what == "kept" && !same {
				t.Errorf("%s is not kept but has another name", old)
			}
		case "mesh", "gone":
			if len(names) > 0 {
				t.Errorf("%s is %s, and yet there is %s", old, what, names[0][1])
			}
		default:
			t.Errorf("%s: what does %q mean?", old, what)
		}
	}
	for _, name := range strings.Fields(docsGrav) {
		if !rows[name] {
			t.Errorf("%s has no row", name)
		}
		delete(rows, name)
	}
	for name := range rows {
		t.Errorf("%s is no name of Grav", name)
	}
}

// docsMember returns a name without its type.
func docsMember(name string) string { return name[strings.Index(name, ".")+1:] }

// docsGravProgram uses what ports by search and replace.
const docsGravProgram = `package main

import (
	"net/http"

	"github.com/suborbital/grav/grav"
)

type service struct {
	g       *grav.Grav
	last    *grav.MsgReceipt
	history *grav.MsgBuffer
}

func (s *service) handle(m grav.Message) error {
	if m.Type() == "grav.default" || m.Type() == grav.MsgTypeDefault {
		return grav.ErrMsgNotWanted
	}
	return nil
}

func (s *service) run(r *http.Request) (string, error) {
	opts := []grav.OptionsModifier{}
	s.g = grav.New(opts...)
	s.history = grav.NewMsgBuffer(100)
	pod, late := s.g.Connect(), s.g.ConnectWithReplay()
	late.On(s.handle)
	late.OnType("a.type", s.handle)
	pod.FilterType("b.type", false)
	pod.FilterUUID("uuid", false)
	var fn grav.MsgFunc = s.handle
	var timeout grav.TimeoutFunc = grav.Timeout(3)
	messages := make(grav.MsgChan, 1)
	receipt := pod.Send(grav.NewMsg("a.type", []byte("data")))
	if err := receipt.WaitUntil(timeout, fn); err == grav.ErrWaitTimeout || err == grav.ErrNoReceipt {
		return receipt.UUID, err
	}
	_ = receipt.WaitOn(fn)
	receipt.OnReply(fn)
	s.last = pod.ReplyTo(<-messages, grav.NewMsgReplyTo(receipt, "a.type", nil))
	m, err := grav.MsgFromRequest(r)
	if err != nil {
		return "", err
	}
	if m, err = grav.MsgFromBytes(m.Data()); err != nil {
		return "", err
	}
	s.history.Push(grav.NewMsgWithParentID(m.Type(), m.ParentID(), nil))
	_ = s.history.Iter(fn)
	s.history.Next().SetReplyTo(s.g.NodeUUID)
	_ = pod.WaitOn(fn)
	_ = pod.WaitUntil(grav.Timeout(1), fn)
	late.Disconnect()
	return receipt.UUID, nil
}

func main() { _, _ = new(service).run(nil) }
`

// TestDocsPort runs the commands of MIGRATING on a program written for Grav, which compiles then.
func TestDocsPort(t *testing.T) {
	if testing.Short() {
		t.Skip("builds a program")
	}
	if out, err := exec.CommandContext(t.Context(), "sed", "--version").Output(); err != nil || !strings.Contains(string(out), "GNU") {
		t.Skip("needs GNU sed")
	}
	i := slices.IndexFunc(docsBlocks("docs/MIGRATING.md", docsRead(t, "docs/MIGRATING.md")), func(b docsBlock) bool {
		return b.lang == "sh" && strings.HasSuffix(strings.TrimSpace(b.after), "<!-- port -->")
	})
	if i < 0 {
		t.Fatal("docs/MIGRATING.md has no commands after <!-- port -->")
	}
	dir := docsModule(t, docsGravProgram)
	script := docsBlocks("docs/MIGRATING.md", docsRead(t, "docs/MIGRATING.md"))[i].text
	cmd := exec.CommandContext(t.Context(), "sh", "-e", "-c", script)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	docsGo(t, dir, "vet", ".")
	ported := docsRead(t, filepath.Join(dir, "main.go"))
	if !strings.Contains(ported, `"grav.default"`) {
		t.Errorf("the type grav.default was changed:\n%s", ported)
	}
}

// TestDocsOperations looks for every event, every line of the log and every field of Stats in OPERATIONS.
func TestDocsOperations(t *testing.T) {
	text := docsRead(t, "docs/OPERATIONS.md")
	docsEachConst(t, "events.go", func(name string, value ast.Expr) {
		if typ, err := strconv.Unquote(docsSource(value)); err == nil && !strings.Contains(text, "| `"+typ+"` |") {
			t.Errorf("the event %s (%s) has no row", name, typ)
		}
	})
	for _, typ := range []reflect.Type{reflect.TypeFor[gravbus.Stats](), reflect.TypeFor[gravbus.PodStats](), reflect.TypeFor[gravbus.PeerStats]()} {
		_, table, _ := strings.Cut(text, "| Field of `"+typ.Name()+"` |")
		table, _, _ = strings.Cut(table, "\n\n")
		for i := range typ.NumField() {
			if name := typ.Field(i).Name; !strings.Contains(table, "| `"+name+"` |") {
				t.Errorf("%s.%s has no row", typ.Name(), name)
			}
		}
	}
	for _, line := range docsLogLines(t) {
		for part := range strings.SplitSeq(regexp.MustCompile(`%[a-z].*?(\n|$)|%[a-z]`).ReplaceAllString(line, "\x00"), "\x00") {
			if part = strings.TrimSpace(part); !strings.Contains(text, part) {
				t.Errorf("the line %q of the log is not explained: %q", line, part)
			}
		}
	}
}

// docsLogLines returns the messages, or their formats, that the package logs, and those that it lets log.
func docsLogLines(t *testing.T) (lines []string) {
	t.Helper()
	levels := regexp.MustCompile(`^(?i)(debug|info|warn|warning|error|fatal|panic|print|trace|clear)f?$`)
	files := docsSources(t, "*.go")
	for _, folder := range []string{"internal/mesh", "transport/websocket", "discovery/static", "discovery/mdns"} {
		files = append(files, docsSources(t, folder+"/*.go")...)
	}
	begins := regexp.MustCompile(`^[a-z]+: [a-z]`)
	for _, file := range files {
		ast.Inspect(file, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok || len(call.Args) == 0 {
				return true
			}
			sel, ok := call.Fun.(*ast.SelectorExpr)
			if !ok || !levels.MatchString(sel.Sel.Name) {
				return true
			}
			if x, ok := sel.X.(*ast.Ident); ok && x.Name == "fmt" {
				return true
			}
			for _, arg := range call.Args[:min(len(call.Args), 2)] { // the first may be a key
				if lit, ok := arg.(*ast.BasicLit); ok && lit.Kind == token.STRING {
					if line, _ := strconv.Unquote(lit.Value); begins.MatchString(line) {
						lines = append(lines, line)
						break
					}
				}
			}
			return true
		})
	}
	if len(lines) == 0 {
		t.Error("the package logs nothing?")
	}
	return lines
}
