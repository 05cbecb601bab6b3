#include "textflag.h"

// Registers: BX the key of a round, CX the rounds that are left, DX the blocks, SI the strides
// that are left; X0 to X7 the blocks, X8 the tweak of the next block, X9 the key of a round and
// scratch, X10 what a tweak is reduced with. The tweaks of a stride are on the stack.

// TWEAK makes the first tweak from the vector.
#define TWEAK \
	MOVQ  iv+24(FP), AX     \
	MOVOU (AX), X8          \
	MOVQ  tweaks+0(FP), BX  \
	MOVQ  rounds+16(FP), CX \
	MOVOU (BX), X9          \
	PXOR  X9, X8            \
tweak:                          \
	ADDQ  $16, BX           \
	MOVOU (BX), X9          \
	DECQ  CX                \
	JZ    tweaked           \
	AESENC X9, X8           \
	JMP   tweak             \
tweaked:                        \
	AESENCLAST X9, X8

// REDUCTION sets X10 to what a bit adds that a half of a tweak loses when it is doubled: the
// upper half to bits 0, 1, 2 and 7, the lower one to bit 64.
#define REDUCTION \
	MOVQ $0x87, AX          \
	MOVQ AX, X10            \
	MOVQ $1, AX             \
	MOVQ AX, X9             \
	PUNPCKLQDQ X9, X10

// BEGIN loads block number I, adds its tweak, and doubles the tweak in GF(2^128).
#define BEGIN(I, B) \
	MOVOU X8, (I*16)(SP)    \
	MOVOU (I*16)(DX), B     \
	PXOR  X8, B             \
	PSHUFD $0x13, X8, X9    \
	PSRAL $31, X9           \
	PAND  X10, X9           \
	PADDQ X8, X8            \
	PXOR  X9, X8

#define END(I, B) \
	MOVOU (I*16)(SP), X9    \
	PXOR  X9, B             \
	MOVOU B, (I*16)(DX)

#define EACH(INSTRUCTION) \
	INSTRUCTION X9, X0      \
	INSTRUCTION X9, X1      \
	INSTRUCTION X9, X2      \
	INSTRUCTION X9, X3      \
	INSTRUCTION X9, X4      \
	INSTRUCTION X9, X5      \
	INSTRUCTION X9, X6      \
	INSTRUCTION X9, X7

#define XTS(ROUND, LAST) \
	TWEAK                   \
	REDUCTION               \
	MOVQ p+32(FP), DX       \
	MOVQ strides+40(FP), SI \
stride:                         \
	BEGIN(0, X0)            \
	BEGIN(1, X1)            \
	BEGIN(2, X2)            \
	BEGIN(3, X3)            \
	BEGIN(4, X4)            \
	BEGIN(5, X5)            \
	BEGIN(6, X6)            \
	BEGIN(7, X7)            \
	MOVQ keys+8(FP), BX     \
	MOVQ rounds+16(FP), CX  \
	MOVOU (BX), X9          \
	EACH(PXOR)              \
round:                          \
	ADDQ $16, BX            \
	MOVOU (BX), X9          \
	DECQ CX                 \
	JZ   last               \
	EACH(ROUND)             \
	JMP  round              \
last:                           \
	EACH(LAST)              \
	END(0, X0)              \
	END(1, X1)              \
	END(2, X2)              \
	END(3, X3)              \
	END(4, X4)              \
	END(5, X5)              \
	END(6, X6)              \
	END(7, X7)              \
	ADDQ $128, DX           \
	DECQ SI                 \
	JNZ  stride             \
	RET

// func encryptXTS(tweaks, keys *roundKeys, rounds int, iv *[16]byte, p *byte, strides int)
TEXT ·encryptXTS(SB), NOSPLIT, $128-48
	XTS(AESENC, AESENCLAST)

// func decryptXTS(tweaks, keys *roundKeys, rounds int, iv *[16]byte, p *byte, strides int)
TEXT ·decryptXTS(SB), NOSPLIT, $128-48
	XTS(AESDEC, AESDECLAST)

// func subWord(w uint32) uint32
TEXT ·subWord(SB), NOSPLIT, $0-12
	MOVL w+0(FP), X0
	PSHUFD $0, X0, X0
	AESKEYGENASSIST $0, X0, X0
	MOVL X0, ret+8(FP)
	RET

// func inverseMixColumns(key *[16]byte)
TEXT ·inverseMixColumns(SB), NOSPLIT, $0-8
	MOVQ key+0(FP), AX
	MOVOU (AX), X0
	AESIMC X0, X0
	MOVOU X0, (AX)
	RET
