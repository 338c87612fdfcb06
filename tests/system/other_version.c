/* A program that says it is another version. */
const char *__wrap_cm_version_text(void);

const char *__wrap_cm_version_text(void)
{
    return "9.9.9";
}
