package sandbox

import (
	"os"
	"syscall"
	"unsafe"
)

// Owners that may set the ceiling: Administrators, LocalSystem, TrustedInstaller.
var adminSIDs = [...]string{
	"S-1-5-32-544", "S-1-5-18", "S-1-5-80-956008885-3418522649-1831038044-1853292631-2271478464",
}

// adminOnly checks that the open file belongs to the administrators. Who else its access list lets write is
// not read: files below %ProgramData%\ds inherit what the administrator's installer set there.
func adminOnly(_ string, f *os.File) error {
	advapi := syscall.NewLazyDLL("advapi32.dll") // a system library, always loaded
	getInfo := advapi.NewProc("GetSecurityInfo")
	if err := getInfo.Find(); err != nil {
		return err
	}
	const seFileObject, ownerInformation = 1, 1
	var sid *syscall.SID
	var descriptor syscall.Handle
	r, _, _ := getInfo.Call(f.Fd(), seFileObject, ownerInformation, uintptr(unsafe.Pointer(&sid)), 0, 0, 0, uintptr(unsafe.Pointer(&descriptor)))
	if r != 0 {
		return syscall.Errno(r)
	}
	defer syscall.LocalFree(descriptor) //nolint:errcheck // nothing to do about it
	owner, err := sid.String()
	if err != nil {
		return err
	}
	for _, s := range adminSIDs {
		if owner == s {
			return nil
		}
	}
	return errNotAdmin
}
