#include "textflag.h"

// Registers: BX the key of a round, CX the rounds that are left, DX the blocks, SI the strides
// that are left; Z0 to Z3 the blocks, four in each, Z4 to Z7 their tweaks, Z8 the key of a round,
// Z9 and Z10 scratch, Z11 what a tweak is reduced with.

// By how many bits the tweak of each of four blocks is shifted, in both of its halves, and 64 less that.
DATA shifts<>+0(SB)/8, $0
DATA shifts<>+8(SB)/8, $0
DATA shifts<>+16(SB)/8, $1
DATA shifts<>+24(SB)/8, $1
DATA shifts<>+32(SB)/8, $2
DATA shifts<>+40(SB)/8, $2
DATA shifts<>+48(SB)/8, $3
DATA shifts<>+56(SB)/8, $3
DATA shifts<>+64(SB)/8, $64
DATA shifts<>+72(SB)/8, $64
DATA shifts<>+80(SB)/8, $63
DATA shifts<>+88(SB)/8, $63
DATA shifts<>+96(SB)/8, $62
DATA shifts<>+104(SB)/8, $62
DATA shifts<>+112(SB)/8, $61
DATA shifts<>+120(SB)/8, $61
GLOBL shifts<>(SB), RODATA|NOPTR, $128

// CARRY adds to each tweak in T what has been shifted out of its halves, which is in Z9: out of the
// lower one to the upper one, out of the upper one times x^7+x^2+x+1 to the lower one.
#define CARRY(T) \
	VPSLLDQ $8, Z9, Z10            \
	VPCLMULQDQ $0x11, Z11, Z9, Z9  \
	VPTERNLOGQ $0x96, Z9, Z10, T

// TIMES sets T to the tweaks in FROM times x^(8·BYTES); REST is 16 less BYTES.
#define TIMES(BYTES, REST, FROM, T) \
	VPSRLDQ $REST, FROM, Z9        \
	VPSLLDQ $BYTES, FROM, T        \
	VPCLMULQDQ $0, Z11, Z9, Z9     \
	VPXORQ Z9, T, T

// TWEAKS makes the tweaks of the first sixteen blocks from the vector.
#define TWEAKS \
	MOVQ iv+24(FP), AX             \
	MOVQ tweaks+0(FP), BX          \
	MOVQ rounds+16(FP), CX         \
	VMOVDQU (AX), X4               \
	VPXOR (BX), X4, X4             \
tweak:                                 \
	ADDQ $16, BX                   \
	DECQ CX                        \
	JZ   tweaked                   \
	VAESENC (BX), X4, X4           \
	JMP  tweak                     \
tweaked:                               \
	VAESENCLAST (BX), X4, X4       \
	MOVQ $0x87, AX                 \
	VPBROADCASTQ AX, Z11           \
	VSHUFI64X2 $0, Z4, Z4, Z4      \
	VPSRLVQ shifts<>+64(SB), Z4, Z9 \
	VPSLLVQ shifts<>+0(SB), Z4, Z4 \
	CARRY(Z4)                      \
	VPSRLQ $60, Z4, Z9             \
	VPSLLQ $4, Z4, Z5              \
	CARRY(Z5)                      \
	TIMES(1, 15, Z4, Z6)           \
	TIMES(1, 15, Z5, Z7)

#define EACH(INSTRUCTION) \
	INSTRUCTION Z8, Z0, Z0         \
	INSTRUCTION Z8, Z1, Z1         \
	INSTRUCTION Z8, Z2, Z2         \
	INSTRUCTION Z8, Z3, Z3

#define END(I, B, T) \
	VPXORQ T, B, B                 \
	VMOVDQU64 B, (I*64)(DX)        \
	TIMES(2, 14, T, T)

#define XTS(ROUND, LAST) \
	TWEAKS                         \
	MOVQ p+32(FP), DX              \
	MOVQ strides+40(FP), SI        \
stride:                                \
	MOVQ keys+8(FP), BX            \
	MOVQ rounds+16(FP), CX         \
	VBROADCASTI32X4 (BX), Z8       \
	VPXORQ (0*64)(DX), Z4, Z0      \
	VPXORQ (1*64)(DX), Z5, Z1      \
	VPXORQ (2*64)(DX), Z6, Z2      \
	VPXORQ (3*64)(DX), Z7, Z3      \
	EACH(VPXORQ)                   \
round:                                 \
	ADDQ $16, BX                   \
	VBROADCASTI32X4 (BX), Z8       \
	DECQ CX                        \
	JZ   last                      \
	EACH(ROUND)                    \
	JMP  round                     \
last:                                  \
	EACH(LAST)                     \
	END(0, Z0, Z4)                 \
	END(1, Z1, Z5)                 \
	END(2, Z2, Z6)                 \
	END(3, Z3, Z7)                 \
	ADDQ $256, DX                  \
	DECQ SI                        \
	JNZ  stride                    \
	VZEROUPPER                     \
	RET

// func encryptWide(tweaks, keys *roundKeys, rounds int, iv *[16]byte, p *byte, strides int)
TEXT ·encryptWide(SB), NOSPLIT, $0-48
	XTS(VAESENC, VAESENCLAST)

// func decryptWide(tweaks, keys *roundKeys, rounds int, iv *[16]byte, p *byte, strides int)
TEXT ·decryptWide(SB), NOSPLIT, $0-48
	XTS(VAESDEC, VAESDECLAST)
