/* Emulate an older x86 CPU: CPUID reports fewer instructions to every library of the process.
 *
 *     cc -shared -fPIC -O1 -o older_cpu.so older_cpu.c
 *     OLDER_CPU=avx2 LD_PRELOAD=./older_cpu.so command
 *
 * OLDER_CPU is `avx2` (no AVX-512, no VNNI, no AMX) or `avx512` (AVX-512 with VNNI, but no bf16, fp16 or AMX).
 *
 * Linux can make the CPUID instruction fault (arch_prctl(2), ARCH_SET_CPUID). The handler runs the instruction, clears
 * the bits of the newer instructions and goes on behind it. Threads and forked processes inherit the fault, started
 * programs get it through LD_PRELOAD. If CPU or kernel cannot do it, the process exits with a line on stderr.
 *
 * Not covered: the dynamic loader, which reads CPUID before this library is loaded (glibc then picks memcpy for the
 * true CPU), and processes in which something else handles SIGSEGV (Python's faulthandler, which pytest enables).
 */
#define _GNU_SOURCE
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#define ARCH_SET_CPUID 0x1012
#define BIT(n) (1u << (n))

static int hides_avx512;

static void hide(unsigned leaf, unsigned subleaf, unsigned *eax, unsigned *ebx, unsigned *ecx, unsigned *edx)
{
    if (leaf == 7 && subleaf == 0) {
        *edx &= ~(BIT(22) | BIT(23) | BIT(24) | BIT(25)); /* AMX-BF16, AVX512-FP16, AMX-TILE, AMX-INT8 */
        if (hides_avx512) {
            *ebx &= ~(BIT(16) | BIT(17) | BIT(21) | BIT(26)); /* AVX512 F, DQ, IFMA, PF */
            *ebx &= ~(BIT(27) | BIT(28) | BIT(30) | BIT(31)); /* AVX512 ER, CD, BW, VL */
            *ecx &= ~(BIT(1) | BIT(6) | BIT(11) | BIT(12) | BIT(14)); /* AVX512 VBMI, VBMI2, VNNI, BITALG, VPOPCNTDQ */
            *edx &= ~(BIT(2) | BIT(3) | BIT(8)); /* AVX512 4VNNIW, 4FMAPS, VP2INTERSECT */
        }
    }
    if (leaf == 7 && subleaf == 1) {
        *eax &= ~(BIT(4) | BIT(5) | BIT(21) | BIT(23)); /* AVX-VNNI, AVX512-BF16, AMX-FP16, AVX-IFMA */
        *edx &= ~(BIT(4) | BIT(5) | BIT(8)); /* AVX-VNNI-INT8, AVX-NE-CONVERT (bf16), AMX-COMPLEX */
        *edx &= ~(BIT(10) | BIT(19)); /* AVX-VNNI-INT16, AVX10 */
    }
}

static void answer_cpuid(int signal, siginfo_t *info, void *context)
{
    greg_t *registers = ((ucontext_t *)context)->uc_mcontext.gregs;
    const unsigned char *code = (const unsigned char *)registers[REG_RIP];
    /* SI_KERNEL: not a page fault and not sent by a process; only then `code` is certain to be readable. */
    if (info->si_code != SI_KERNEL || code[0] != 0x0f || code[1] != 0xa2) {
        struct sigaction end_process = {.sa_handler = SIG_DFL};
        sigaction(signal, &end_process, NULL);
        if (info->si_code <= 0) /* sent by a process, so it does not occur again by itself */
            raise(signal);
        return;
    }
    unsigned leaf = registers[REG_RAX];
    unsigned subleaf = registers[REG_RCX];
    unsigned eax, ebx, ecx, edx;
    syscall(SYS_arch_prctl, ARCH_SET_CPUID, 1);
    __asm__ volatile("cpuid" : "=a"(eax), "=b"(ebx), "=c"(ecx), "=d"(edx) : "a"(leaf), "c"(subleaf));
    syscall(SYS_arch_prctl, ARCH_SET_CPUID, 0);
    hide(leaf, subleaf, &eax, &ebx, &ecx, &edx);
    registers[REG_RAX] = eax;
    registers[REG_RBX] = ebx;
    registers[REG_RCX] = ecx;
    registers[REG_RDX] = edx;
    registers[REG_RIP] += 2; /* the length of CPUID */
}

__attribute__((constructor)) static void start(void)
{
    const char *kind = getenv("OLDER_CPU");
    if (!kind)
        return;
    if (strcmp(kind, "avx2") && strcmp(kind, "avx512")) {
        fputs("older_cpu: OLDER_CPU must be avx2 or avx512\n", stderr);
        _exit(1);
    }
    hides_avx512 = !strcmp(kind, "avx2");
    struct sigaction action = {.sa_sigaction = answer_cpuid, .sa_flags = SA_SIGINFO};
    sigaction(SIGSEGV, &action, NULL);
    if (syscall(SYS_arch_prctl, ARCH_SET_CPUID, 0)) {
        fputs("older_cpu: this CPU or kernel cannot make CPUID fault\n", stderr);
        _exit(1);
    }
}
