#include "embeddings/kernels.h"
int main(void)
{
    return 0;
}
