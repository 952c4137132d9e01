resource "aws_iam_role_policy_attachment" "passing" {
  role       = "hosting"
  policy_arn = "arn:aws:iam::aws:policy/service-role/AWSLambdaBasicExecutionRole"
}
