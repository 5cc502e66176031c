package netlab_test

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/gravbus/gravbus/internal/netlab"
)

// program is set for a child: the test binary is also the program on the hosts.
const program = "NETLAB_TEST_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(program) != "" {
		echo()
		return
	}
	goleak.VerifyTestMain(m)
}

// echo answers UDP packets, and asks others: a line "ask ADDRESS" is answered by "yes" or "no".
func echo() {
	server, err := net.ListenPacket("udp", ":7")
	if err != nil {
		fmt.Println("fail", err)
		return
	}
	go func() {
		buf := make([]byte, 16)
		for {
			n, from, err := server.ReadFrom(buf)
			if err != nil {
				return
			}
			_, _ = server.WriteTo(buf[:n], from)
		}
	}()
	fmt.Println("ready", os.Getpid())
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		if addr, ok := strings.CutPrefix(in.Text(), "ask "); ok {
			fmt.Println("answer", ask(addr))
		}
	}
}

func ask(addr string) string {
	conn, err := net.Dial("udp", net.JoinHostPort(addr, "7"))
	if err != nil {
		return "no"
	}
	defer conn.Close()
	for range 3 { // an address that was never used may cost the first packet
		_ = conn.SetDeadline(time.Now().Add(200 * time.Millisecond))
		_, _ = conn.Write([]byte("hello"))
		if _, err := conn.Read(make([]byte, 16)); err == nil {
			return "yes"
		}
	}
	return "no"
}

func start(t *testing.T, h *netlab.Host) *netlab.Proc {
	t.Helper()
	p := h.Start([]string{program + "=1"}, os.Args[0])
	p.Expect("ready")
	return p
}

// expect checks who can reach whom.
func expect(t *testing.T, when string, p *netlab.Proc, addr, want string) {
	t.Helper()
	p.Send("ask " + addr)
	if got := p.Expect("answer "); got != want {
		t.Errorf("%s: is %s reached? %s, want %s", when, addr, got, want)
	}
}

func TestLab(t *testing.T) {
	lab := netlab.New(t)
	lan, other := lab.Bridge(), lab.Bridge()
	a, b, c := lab.Host(lan), lab.Host(lan, other), lab.Host(other)
	pa, pb := start(t, a), start(t, b)
	start(t, c)

	expect(t, "on the same network", pa, b.Addr(lan), "yes")
	expect(t, "on the same network", pa, b.Addr6(lan), "yes")
	expect(t, "on two networks", pb, a.Addr(lan), "yes")
	expect(t, "on two networks", pb, c.Addr(other), "yes")
	expect(t, "on another network", pa, c.Addr(other), "no")

	lan.Unplug(b)
	expect(t, "after Unplug", pa, b.Addr(lan), "no")
	lan.Plug(b)
	expect(t, "after Plug", pa, b.Addr(lan), "yes")

	b.LinkDown(lan)
	expect(t, "after LinkDown", pa, b.Addr(lan), "no")
	expect(t, "after LinkDown", pb, c.Addr(other), "yes")
	b.LinkUp(lan)
	expect(t, "after LinkUp", pa, b.Addr(lan), "yes")
	expect(t, "after LinkUp", pa, b.Addr6(lan), "yes")

	b.Recreate(lan)
	expect(t, "after Recreate", pa, b.Addr(lan), "yes")
	expect(t, "after Recreate", pa, b.Addr6(lan), "yes")

	d := lab.Host(lan)
	pd := start(t, d)
	lan.Partition(a, d)
	expect(t, "in one half", pd, a.Addr(lan), "yes")
	expect(t, "across the halves", pa, b.Addr(lan), "no")
	lan.Heal()
	expect(t, "after Heal", pa, b.Addr(lan), "yes")
}

func TestNothingIsLeft(t *testing.T) {
	var pid string
	namespaces := func() string {
		out, err := exec.Command("ip", "netns", "list").Output()
		if err != nil {
			t.Fatal(err)
		}
		return string(out)
	}
	mark := fmt.Sprintf("gravlab-%d-", os.Getpid())
	t.Run("lab", func(t *testing.T) {
		lab := netlab.New(t)
		p := lab.Host(lab.Bridge()).Start([]string{program + "=1"}, os.Args[0])
		pid = p.Expect("ready ")
		if !strings.Contains(namespaces(), mark) {
			t.Errorf("no namespace has a name with %q", mark)
		}
	})
	if pid == "" {
		t.Skip("there was no lab")
	}
	if _, err := os.Stat("/proc/" + pid); err == nil {
		t.Errorf("process %s is still there", pid)
	}
	if all := namespaces(); strings.Contains(all, mark) {
		t.Errorf("namespaces are left:\n%s", all)
	}
}

// What a test run leaves that was killed is swept away by the next.
func TestSweep(t *testing.T) {
	netlab.New(t)
	// No process has a number this high (PID_MAX_LIMIT of the kernel is 2^22).
	const name = "gravlab-99999999-1"
	if out, err := exec.Command("ip", "netns", "add", name).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	netlab.New(t)
	if out, _ := exec.Command("ip", "netns", "list").Output(); strings.Contains(string(out), name) {
		t.Errorf("it is still there:\n%s", out)
		_ = exec.Command("ip", "netns", "del", name).Run()
	}
}

func TestProc(t *testing.T) {
	lab := netlab.New(t)
	h := lab.Host()
	p := h.Start(nil, "sh", "-c", "echo one; echo two; echo three >&2; read x; echo got $x; exit 3")
	if got := p.Expect("t"); got != "wo" {
		t.Errorf("Expect returns %q, want %q", got, "wo")
	}
	p.Send("this")
	if got := p.Expect("got "); got != "this" {
		t.Errorf("Expect returns %q, want %q", got, "this")
	}
	if err := p.Wait(); err == nil || err.Error() != "exit status 3" {
		t.Errorf("Wait returns %v, want exit status 3", err)
	}
	if got := p.Stderr(); got != "three\n" {
		t.Errorf("its standard error is %q", got)
	}
	p.Kill()
	p.Kill()
}

func TestAlone(t *testing.T) {
	p := netlab.Alone(t, []string{program + "=1"}, os.Args[0])
	p.Expect("ready")
	expect(t, "alone", p, "127.0.0.1", "yes")
	expect(t, "alone", p, "192.0.2.1", "no")
}
