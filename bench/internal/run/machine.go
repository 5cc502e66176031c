package run

import (
	"cmp"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"

	"github.com/gravbus/gravbus/bench/internal/peer"
	"github.com/gravbus/gravbus/bench/internal/result"
)

// machine describes where this runs, as far as it can be found out.
func machine() result.Machine {
	m := result.Machine{CPU: "unknown", Cores: runtime.NumCPU(), OS: runtime.GOOS, Arch: runtime.GOARCH, Go: runtime.Version()}
	if kernel := cmp.Or(fileOf("/proc/sys/kernel/osrelease"), sysctl("kern.osrelease")); kernel != "" {
		version, _, _ := strings.Cut(kernel, "-") // what follows is whose build it is
		m.OS += " " + version
	}
	if cpu := cmp.Or(fieldOf("/proc/cpuinfo", "model name"), sysctl("machdep.cpu.brand_string"), sysctl("hw.model")); cpu != "" {
		m.CPU = cpu
	}
	if kib, err := strconv.ParseUint(strings.TrimSuffix(fieldOf("/proc/meminfo", "MemTotal"), " kB"), 10, 64); err == nil {
		m.Memory = kib << 10
	} else if n, err := strconv.ParseUint(cmp.Or(sysctl("hw.memsize"), sysctl("hw.physmem")), 10, 64); err == nil {
		m.Memory = n
	}
	return m
}

func fileOf(name string) string {
	data, err := os.ReadFile(name)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(data))
}

// fieldOf returns the value of the first line "key : value" of a file.
func fieldOf(name, key string) string {
	for line := range strings.Lines(fileOf(name)) {
		if k, v, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(k) == key {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

func sysctl(name string) string {
	if runtime.GOOS == "linux" || runtime.GOOS == "windows" {
		return ""
	}
	out, err := exec.Command("sysctl", "-n", name).Output()
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(out))
}

// describe returns the peers as the report has them, with the versions this program was built with.
// The modules of the checkout have own for a version.
func describe(peers []peer.Peer, own string) []result.Peer {
	versions := map[string]string{}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, m := range append(info.Deps, &info.Main) {
			version := m.Version
			if m.Replace != nil {
				version = m.Replace.Version
			}
			if version == "" || version == "(devel)" {
				version = own
			}
			versions[m.Path] = version
		}
	}
	all := make([]result.Peer, len(peers))
	for i, p := range peers {
		all[i] = result.Peer{ID: p.ID, Name: p.Name, Module: p.Module, Version: versions[p.Module], Kind: string(p.Kind), Note: p.Note}
	}
	return all
}
