resource "aws_iam_role_policy_attachment" "failing" {
  role       = "hosting"
  policy_arn = "arn:aws:iam::aws:policy/AmazonSageMakerFullAccess"
}

resource "aws_iam_role" "failing" {
  name                = "hosting"
  assume_role_policy  = "{}"
  managed_policy_arns = ["arn:aws:iam::aws:policy/AWSLambda_FullAccess", "arn:aws:iam::aws:policy/AmazonS3ReadOnlyAccess"]
}
