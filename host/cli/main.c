/* The program's entry: see clustermark/cli.h for the subcommands. */
int main(void)
{
    return 70;
}
